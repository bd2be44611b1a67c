"""scripts/hammer: modalities that push, a node that is killed, a PACS in trouble, and the balance of it all."""
