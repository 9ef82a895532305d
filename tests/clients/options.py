"""The options that every client takes, so that a scenario starts them all alike."""

import argparse


def parse(description, bucket):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--access-key", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--bucket", default=bucket)
    return parser.parse_args()
