#!/usr/bin/env python3
"""Writes botocore_requests.jsonl: every operation of botocore's S3 model, as its client puts it on the wire.

    python3 botocore_requests.py > botocore_requests.jsonl

A line per distinct request: {operation, bucket, key, domain, method, target, headers}. Styles: path, virtual host, and
presigned with SigV4 and with SigV2, which moves x-amz-* headers into the query. Required members get plain values;
headers are cut down to those that can matter for the name. What botocore cannot presign (a SigV4 query with a body
checksum) is reported and left out. Nothing is sent.
"""
import json
import sys
from urllib.parse import urlsplit

import botocore
import botocore.session
from botocore.config import Config

BUCKET, KEY = "my-bucket", "dir/a key+b"
DOMAIN = "s3.example.test"
KEPT = {"host", "x-amz-copy-source", "x-amz-rename-source", "content-type", "x-amz-request-token", "x-amz-create-session-mode"}
TWINS = {
    # The same on the wire at an endpoint of one's own.
    "ListDirectoryBuckets": "ListBuckets",
    "GetBucketLifecycle": "GetBucketLifecycleConfiguration",
    "GetBucketNotification": "GetBucketNotificationConfiguration",
    "PutBucketLifecycle": "PutBucketLifecycleConfiguration",
    "PutBucketNotification": "PutBucketNotificationConfiguration",
}


def value(shape, name=None):
    if name == "Bucket":
        return BUCKET
    if name == "Key":
        return KEY
    if name in ("CopySource", "RenameSource"):
        return "/source-bucket/source key"
    kind = shape.type_name
    if kind == "structure" and getattr(shape, "is_tagged_union", False):
        member = next(iter(shape.members))
        return {member: value(shape.members[member], member)}
    if kind == "structure":
        return {member: value(shape.members[member], member) for member in shape.required_members}
    if kind == "list":
        return [value(shape.member)]
    if kind == "map":
        return {}
    if kind in ("integer", "long"):
        return 3
    if kind == "boolean":
        return True
    if kind == "blob":
        return b"body"
    if kind == "timestamp":
        return 0
    if getattr(shape, "enum", None):
        return shape.enum[0]
    return "value" + "x" * (shape.metadata.get("min", 0) - len("value"))


class Caught(Exception):
    pass


def requests():
    session = botocore.session.get_session()
    session.set_credentials("AKIDEXAMPLE", "secret")
    for style in ("path", "virtual"):
        for signature in ("s3v4", "s3v4-query", "s3-query"):
            config = Config(
                s3={"addressing_style": style},
                signature_version=signature,
                request_checksum_calculation="when_required",
                retries={"max_attempts": 0},
            )
            client = session.create_client("s3", "us-east-1", endpoint_url=f"http://{DOMAIN}", config=config)
            caught = {}

            def catch(request, **_):
                caught["request"] = request
                raise Caught

            client.meta.events.register("before-send.s3", catch)
            model = client.meta.service_model
            for name in model.operation_names:
                operation = model.operation_model(name)
                arguments = value(operation.input_shape) if operation.input_shape else {}
                if name == "ListObjectsV2":
                    arguments["Prefix"] = "dir/"
                caught.clear()
                python_name = next(k for k, v in client.meta.method_to_api_mapping.items() if v == name)
                try:
                    getattr(client, python_name)(**arguments)
                except Caught:
                    pass
                except Exception as error:
                    print(f"{name} {style} {signature}: {error}", file=sys.stderr)
                request = caught.get("request")
                if request is None:
                    continue
                url = urlsplit(request.url)
                headers = {k.lower(): v.decode() if isinstance(v, bytes) else v for k, v in request.headers.items()}
                headers = {k: v for k, v in headers.items() if k in KEPT}
                headers["host"] = url.netloc
                query = "&".join(
                    p for p in url.query.split("&")
                    if p and not p.lower().startswith(("x-amz-signature", "x-amz-date", "x-amz-algorithm", "x-amz-credential",
                                                       "x-amz-expires", "x-amz-signedheaders", "signature=", "expires=", "x-amz-content"))
                )
                yield {
                    "operation": TWINS.get(name, name),
                    "bucket": BUCKET if "Bucket" in arguments else "",
                    "key": KEY if "Key" in arguments else "",
                    "method": request.method,
                    "target": url.path + ("?" + query if query else ""),
                    "headers": headers,
                }


def main():
    seen = set()
    for request in requests():
        line = json.dumps(request, sort_keys=True)
        if line not in seen:
            seen.add(line)
            print(line)
    print(f"botocore {botocore.__version__}", file=sys.stderr)


main()
