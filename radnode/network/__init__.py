"""The only room that imports pynetdicom: listener, Storage SCP and SCU, TLS.

tls          SSL contexts of both sides; why a handshake failed, in one word
contexts     the presentation contexts that are accepted and proposed
command_set  the command set of a DIMSE message, read and written with struct
statuses     what a C-STORE status means to the one who sent the object
admission    who may associate: titles, certificates, addresses, limits
upper_layer  pynetdicom's upper layer, held to deadlines and lengths
messages     P-DATA put together to messages
association  one accepted association: negotiation, C-ECHO, C-STORE
transport    sockets: accept, TLS handshake, waiting for the first byte
server       the listener that the node starts and drains
storage_scu  the other direction: echo and store to a destination
"""
