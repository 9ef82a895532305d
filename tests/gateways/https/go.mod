module s3auditd/tests/gateways/https

go 1.18
