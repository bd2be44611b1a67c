key-id: radnode-models
signature: Sz+LQYncA5UieNR/A3gPYUleawog3aQk9mwhPrlFkaAWQuG+apcK10TkRPBaIy+3jGu26rwgYfMpMNupEcMvCw==
