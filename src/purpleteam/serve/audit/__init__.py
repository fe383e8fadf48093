"""The audit log of the served app: append-only, tamper-evident, committed before an answer.

- `merkle`   tree hashes and proofs of RFC 6962;  `note`: signed checkpoints of C2SP
- `log`      the file, of which one process is the only writer
- `writer`   that writer, in a thread or a process, and `AuditClient`, by which a worker reaches it
- `verify`   what `purple verify --log` says of a file
"""
