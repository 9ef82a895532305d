"""boto3 with every kind of secret that it has; prints each secret that it sent or was given, as a JSON string a line."""

import argparse
import http.client
import json
import re
import urllib.parse

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET, KEY = "secrets", "in the open.txt"
HEADERS = re.compile(r"^(x-amz-security-token|x-amz-(copy-source-)?server-side-encryption-customer-key)$", re.IGNORECASE)
PARAMETERS = {"Signature", "X-Amz-Signature", "X-Amz-Security-Token", "x-amz-security-token"}

_secrets = set()


def note_request(request, **_):
    """What is secret in a request that botocore is about to send."""
    text = {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in request.headers.items()}
    authorization = text.get("Authorization", "")
    _secrets.update(re.findall(r"Signature=([0-9a-f]{64})", authorization))
    _secrets.update(re.findall(r"^AWS [^:]*:(.+)$", authorization))
    _secrets.update(value for name, value in text.items() if HEADERS.match(name))
    note_url(request.url)


def note_url(url):
    query = urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)
    _secrets.update(value for name, value in query if name in PARAMETERS)


def tried(call, **parameters):
    """Makes a call that may be refused. The reply, or None."""
    try:
        reply = call(**parameters)
        if "Body" in reply:
            reply["Body"].read()
        return reply
    except ClientError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--access-key", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--region", default="us-east-1")
    arguments = parser.parse_args()
    def client(service="s3", access_key=arguments.access_key, secret=arguments.secret_key, token=None, signature="s3v4"):
        config = Config(retries={"total_max_attempts": 1}, signature_version=signature, s3={"addressing_style": "path"})
        made = boto3.session.Session().client(
            service,
            endpoint_url=arguments.endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            region_name=arguments.region,
            config=config,
        )
        made.meta.events.register("before-send", note_request)
        return made

    s3 = client()
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"for all to see")
    sts = client("sts", signature="v4")
    issued = sts.assume_role(RoleArn="arn:aws:iam::1:role/some-role-name", RoleSessionName="session")["Credentials"]
    _secrets.update([issued["SecretAccessKey"], issued["SessionToken"]])
    tried(sts.assume_role_with_web_identity, RoleArn="a" * 20, RoleSessionName="session", WebIdentityToken="SECRETwebZq.a.b")
    _secrets.add("SECRETwebZq")
    own = {"access_key": issued["AccessKeyId"], "secret": issued["SecretAccessKey"], "token": issued["SessionToken"]}
    for who in ({}, own, {"secret": "SECRETwrongZq-as-a-key"}, {"token": "SECRETtokenZq"}):
        for signature in ("s3", "s3v4"):
            signer = client(**who, signature=signature)
            tried(signer.get_object, Bucket=BUCKET, Key=KEY)
            tried(signer.put_object, Bucket=BUCKET, Key="put.txt", Body=b"put")
            for method, body in (("get_object", None), ("put_object", b"by link")):
                url = signer.generate_presigned_url(method, Params={"Bucket": BUCKET, "Key": KEY}, ExpiresIn=600)
                note_url(url)
                send(arguments.endpoint, url, body)
    customer = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "SECRETcustomerkeyof32bytesZqZqZq"}
    tried(s3.put_object, Bucket=BUCKET, Key="sealed", Body=b"sealed", **customer)
    tried(s3.get_object, Bucket=BUCKET, Key="sealed", **customer)
    source = {f"CopySource{name}": value for name, value in customer.items()}
    tried(s3.copy_object, Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "sealed"}, **source)
    _secrets.update([customer["SSECustomerKey"], arguments.secret_key])
    for secret in sorted(_secrets):
        print(json.dumps(secret))


def send(endpoint, url, body):
    """A link as a browser follows it, with the page it came from."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(endpoint).netloc, timeout=60)
    target = url.removeprefix(endpoint)
    connection.request("GET" if body is None else "PUT", target, body, {"Referer": url, "Cookie": "c=SECRETcookieZq"})
    _secrets.add("SECRETcookieZq")
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()
