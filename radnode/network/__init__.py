"""The only room that imports pynetdicom: listener, Storage SCP and SCU, TLS.

compatibility  whether the installed pynetdicom is the one that this room was written for
renewal        the listener's certificate files, read again when they change
tls            SSL contexts of both sides; why a handshake failed, in one word
contexts       the presentation contexts that are accepted and proposed
statuses       what a C-STORE status means to the one who sent the object
command_set    the command set of a DIMSE message, read and written with struct

server         the listener that the node starts and drains
transport      its sockets: first byte, TLS handshake, limits on waiting connections
admission      who may associate: titles, certificates, addresses, limits
possession     whether somebody on this machine holds a certificate
screen         an association request made safe for pynetdicom to decode
upper_layer    pynetdicom's upper layer, held to deadlines and lengths
messages       P-DATA put together to whole messages
association    one accepted association: negotiation, C-ECHO, C-STORE

storage_scu    the other direction: echo and store to a destination
wire           the PDUs it sends and reads
part10         the File Meta Information of the object it sends
"""
