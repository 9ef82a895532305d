"""Every operation of the AWS model against one gateway, and every way to sign or not to sign: for the comparison with
MinIO's own audit. Prints nothing: the gateway says what happened."""

import argparse
import datetime
import http.client
import io
import json
import tarfile
import urllib.parse

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

MIB = 1024 * 1024
ODD_KEY = "reports/2025 q1/ü+plus&more=50%/naïve.txt"
DAY = datetime.timedelta(days=1)


class Gateway:
    """Where it is, and who asks."""

    def __init__(self, arguments):
        self.endpoint = arguments.endpoint
        self.host = urllib.parse.urlsplit(arguments.endpoint).netloc
        self.access_key = arguments.access_key
        self.secret_key = arguments.secret_key
        self.region = arguments.region

    def client(self, service="s3", access_key=None, secret_key=None, token=None, signature="s3v4", **config):
        """A client that asks once and does not follow."""
        config = {"inject_host_prefix": False, "read_timeout": 60, **config}
        s3 = {"addressing_style": "path", **config.pop("s3", {})}
        return boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=access_key or self.access_key,
            aws_secret_access_key=secret_key or self.secret_key,
            aws_session_token=token,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1}, signature_version=signature, s3=s3, **config),
        )

    def signed(self, method, target, headers=None):
        """A target with a proof in its query, for what no SDK can say."""
        request = AWSRequest(method, self.endpoint + target, headers=headers or {})
        S3SigV4QueryAuth(Credentials(self.access_key, self.secret_key), "s3", self.region, expires=600).add_auth(request)
        return request.url.removeprefix(self.endpoint)

    def raw(self, method, target, body=None, headers=None, framed=None):
        """A request as given, with nothing added but Host and, for a body that is not framed, its length."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body if framed is None else framed)
        reply = connection.getresponse()
        answer = (reply.status, reply.read())
        connection.close()
        return answer


def tried(call, **parameters):
    """Makes a call that may be refused: refused or not, it has a record. The reply, or None."""
    try:
        reply = call(**parameters)
        for body in (reply.get("Body"), reply.get("Payload")):
            if body is not None:
                body.read() if hasattr(body, "read") else list(body)
        return reply
    except (ClientError, BotoCoreError):
        return None


def objects(gateway):
    """The life of objects, plain and in a versioned bucket with locks."""
    s3 = gateway.client()
    bucket = "objects"
    s3.create_bucket(Bucket=bucket)
    for key, body in [("empty", b""), ("small.txt", b"hello"), (ODD_KEY, b"odd" * 100), ("large.bin", b"x" * 3 * MIB)]:
        s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"colour": "dark blue"}, ContentType="text/plain")
        tried(s3.get_object, Bucket=bucket, Key=key)
        tried(s3.head_object, Bucket=bucket, Key=key)
    etag = s3.head_object(Bucket=bucket, Key="small.txt")["ETag"]
    tried(s3.get_object, Bucket=bucket, Key="small.txt", Range="bytes=0-1")
    tried(s3.get_object, Bucket=bucket, Key="small.txt", Range="bytes=900-")
    tried(s3.get_object, Bucket=bucket, Key="small.txt", IfNoneMatch=etag)
    tried(s3.head_object, Bucket=bucket, Key="small.txt", IfNoneMatch=etag)
    tried(s3.get_object, Bucket=bucket, Key="small.txt", IfMatch='"0"')
    tried(s3.get_object, Bucket=bucket, Key="small.txt", ResponseContentType="text/x-odd")
    tried(s3.get_object, Bucket=bucket, Key="not-there")
    tried(s3.head_object, Bucket=bucket, Key="not-there")
    tried(s3.get_object, Bucket="no-such-bucket-here", Key="small.txt")
    tried(s3.head_bucket, Bucket="no-such-bucket-here")
    tried(s3.list_objects_v2, Bucket="no-such-bucket-here")
    tried(s3.create_bucket, Bucket=bucket)
    tried(s3.delete_bucket, Bucket=bucket)
    tried(s3.copy_object, Bucket=bucket, Key="copy.txt", CopySource={"Bucket": bucket, "Key": ODD_KEY})
    tried(s3.copy_object, Bucket=bucket, Key="copy.txt", CopySource={"Bucket": bucket, "Key": "not-there"})
    tried(s3.put_object, Bucket=bucket, Key="sums.txt", Body=b"sum", ChecksumAlgorithm="SHA256")
    tried(s3.put_object, Bucket=bucket, Key="gz", Body=b"zip", ContentEncoding="gzip", CacheControl="no-cache")
    tried(s3.put_object, Bucket=bucket, Key="once.txt", Body=b"1", IfNoneMatch="*")
    tried(s3.put_object, Bucket=bucket, Key="once.txt", Body=b"2", IfNoneMatch="*")
    tried(s3.get_object_attributes, Bucket=bucket, Key="small.txt", ObjectAttributes=["ETag", "ObjectSize"])
    tried(s3.put_object_tagging, Bucket=bucket, Key="small.txt", Tagging={"TagSet": [{"Key": "a", "Value": "b c"}]})
    tried(s3.get_object_tagging, Bucket=bucket, Key="small.txt")
    tried(s3.delete_object_tagging, Bucket=bucket, Key="small.txt")
    csv = {"CSV": {"FileHeaderInfo": "USE"}}
    s3.put_object(Bucket=bucket, Key="table.csv", Body=b"a,b\n1,2\n3,4\n")
    select = {"ExpressionType": "SQL", "InputSerialization": csv, "OutputSerialization": {"JSON": {}}}
    tried(s3.select_object_content, Bucket=bucket, Key="table.csv", Expression="select * from S3Object", **select)
    tried(s3.select_object_content, Bucket=bucket, Key="table.csv", Expression="not sql", **select)
    tried(s3.restore_object, Bucket=bucket, Key="small.txt", RestoreRequest={"Days": 1})
    for listing in (s3.list_objects, s3.list_objects_v2, s3.list_object_versions):
        tried(listing, Bucket=bucket)
        tried(listing, Bucket=bucket, Prefix="reports/", Delimiter="/", EncodingType="url", MaxKeys=1)
    for number in range(30):
        s3.put_object(Bucket=bucket, Key=f"many/{number:03}", Body=b"m")
    tried(s3.list_objects_v2, Bucket=bucket, Prefix="many/", MaxKeys=7)
    keys = [{"Key": f"many/{number:03}"} for number in range(30)] + [{"Key": "not-there"}]
    tried(s3.delete_objects, Bucket=bucket, Delete={"Objects": keys})
    tried(s3.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": ODD_KEY}], "Quiet": True})

    # Chunks with a signature each, or none; and no body without a 100.
    for name, config in [("plain", {"payload_signing_enabled": True}), ("unsigned", {"payload_signing_enabled": False})]:
        signed = gateway.client(s3=config, request_checksum_calculation="when_required")
        signed.put_object(Bucket=bucket, Key=f"{name}.bin", Body=b"s" * 70_000)
    wrong = gateway.client(secret_key="wrong-" + gateway.secret_key)
    tried(wrong.put_object, Bucket=bucket, Key="refused", Body=b"r" * 400_000)

    bucket = "versions"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    tried(s3.get_bucket_versioning, Bucket=bucket)
    versions = [s3.put_object(Bucket=bucket, Key="v", Body=b"v" * n).get("VersionId") for n in (1, 2, 3)]
    tried(s3.get_object, Bucket=bucket, Key="v", VersionId=versions[0])
    tried(s3.get_object, Bucket=bucket, Key="v", VersionId="not-a-version")
    tried(s3.list_object_versions, Bucket=bucket)
    source = {"Bucket": bucket, "Key": "v", "VersionId": versions[0]}
    tried(s3.copy_object, Bucket=bucket, Key="from-version", CopySource=source)
    tried(s3.copy_object, Bucket=bucket, Key="from-afar", CopySource={"Bucket": "objects", "Key": "small.txt"})
    tried(s3.put_object_legal_hold, Bucket=bucket, Key="v", VersionId=versions[1], LegalHold={"Status": "ON"})
    tried(s3.get_object_legal_hold, Bucket=bucket, Key="v", VersionId=versions[1])
    tried(s3.delete_object, Bucket=bucket, Key="v", VersionId=versions[1])
    tried(s3.put_object_legal_hold, Bucket=bucket, Key="v", VersionId=versions[1], LegalHold={"Status": "OFF"})
    until = datetime.datetime.now(datetime.UTC) + DAY
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    tried(s3.put_object_retention, Bucket=bucket, Key="v", VersionId=versions[2], Retention=retention)
    tried(s3.get_object_retention, Bucket=bucket, Key="v", VersionId=versions[2])
    tried(s3.delete_object, Bucket=bucket, Key="v", VersionId=versions[2], BypassGovernanceRetention=True)
    tried(s3.delete_object, Bucket=bucket, Key="v")
    tried(s3.get_object, Bucket=bucket, Key="v")
    tried(s3.head_object, Bucket=bucket, Key="v")


def uploads(gateway):
    """Uploads in parts: whole, copied, listed, given up, wrong."""
    s3 = gateway.client()
    bucket, key = "uploads", "in parts/größe.bin"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="source", Body=b"c" * (6 * MIB))
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    where = {"Bucket": bucket, "Key": key, "UploadId": upload}
    parts = [{"PartNumber": 1, "ETag": s3.upload_part(**where, PartNumber=1, Body=b"p" * (5 * MIB))["ETag"]}]
    copied = s3.upload_part_copy(**where, PartNumber=2, CopySource={"Bucket": bucket, "Key": "source"})
    parts.append({"PartNumber": 2, "ETag": copied["CopyPartResult"]["ETag"]})
    ranged = {"CopySource": {"Bucket": bucket, "Key": "source"}, "CopySourceRange": "bytes=0-99"}
    copied = s3.upload_part_copy(**where, PartNumber=3, **ranged)
    parts.append({"PartNumber": 3, "ETag": copied["CopyPartResult"]["ETag"]})
    tried(s3.upload_part_copy, **where, PartNumber=4, CopySource={"Bucket": bucket, "Key": "not-there"})
    tried(s3.list_parts, **where)
    tried(s3.list_multipart_uploads, Bucket=bucket, Prefix=key)
    tried(s3.complete_multipart_upload, **where, MultipartUpload={"Parts": [{"PartNumber": 9, "ETag": '"0"'}]})
    tried(s3.complete_multipart_upload, **where, MultipartUpload={"Parts": parts})
    tried(s3.get_object, Bucket=bucket, Key=key, PartNumber=1)
    tried(s3.head_object, Bucket=bucket, Key=key, PartNumber=2)
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    where["UploadId"] = upload
    tried(s3.upload_part, **where, PartNumber=1, Body=b"given up")
    tried(s3.abort_multipart_upload, **where)
    tried(s3.abort_multipart_upload, **where)
    tried(s3.list_parts, **where)
    tried(s3.upload_part, **where, PartNumber=1, Body=b"too late")
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(b"t" * (11 * MIB)), bucket, "transfer.bin", Config=config)
    s3.download_fileobj(bucket, "transfer.bin", io.BytesIO(), Config=config)


def settings(gateway):
    """What a bucket can be told, and asked, and told to forget."""
    s3 = gateway.client()
    bucket = "settings"
    s3.create_bucket(Bucket=bucket)
    policy = {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"]}
    policy["Resource"] = [f"arn:aws:s3:::{bucket}/public/*"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    lifecycle = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
    encryption = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    replication = {"Status": "Enabled", "Destination": {"Bucket": "arn:aws:s3:::elsewhere"}, "Prefix": "", "Priority": 1}
    cors = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
    queue = {"QueueArn": "arn:minio:sqs::none:webhook", "Events": ["s3:ObjectCreated:*"]}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}
    block = {"BlockPublicAcls": True}
    told = [
        (s3.put_bucket_policy, {"Policy": policy}),
        (s3.put_bucket_policy, {"Policy": "{}"}),
        (s3.put_bucket_tagging, {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}),
        (s3.put_bucket_lifecycle_configuration, {"LifecycleConfiguration": {"Rules": [lifecycle]}}),
        (s3.put_bucket_encryption, {"ServerSideEncryptionConfiguration": {"Rules": [encryption]}}),
        (s3.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Enabled"}}),
        (s3.put_bucket_replication, {"ReplicationConfiguration": {"Role": "", "Rules": [replication]}}),
        (s3.put_bucket_cors, {"CORSConfiguration": {"CORSRules": [cors]}}),
        (s3.put_bucket_notification_configuration, {"NotificationConfiguration": {"QueueConfigurations": [queue]}}),
        (s3.put_bucket_notification_configuration, {"NotificationConfiguration": {}}),
        (s3.put_object_lock_configuration, {"ObjectLockConfiguration": lock}),
        (s3.put_public_access_block, {"PublicAccessBlockConfiguration": block}),
        (s3.put_bucket_acl, {"ACL": "private"}),
        (s3.put_bucket_website, {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "index.html"}}}),
        (s3.put_bucket_logging, {"BucketLoggingStatus": {}}),
        (s3.put_bucket_accelerate_configuration, {"AccelerateConfiguration": {"Status": "Enabled"}}),
        (s3.put_bucket_request_payment, {"RequestPaymentConfiguration": {"Payer": "Requester"}}),
    ]
    for call, parameters in told:
        tried(call, Bucket=bucket, **parameters)
    s3.put_object(Bucket=bucket, Key="public/page", Body=b"for all")
    names = s3.meta.service_model.operation_names
    for name in [name for name in names if name.startswith(("GetBucket", "GetPublic", "GetObjectLock"))]:
        every_field(s3, name, bucket, "-")
    gateway.raw("GET", f"/{bucket}/public/page")
    gateway.raw("GET", f"/{bucket}/private")
    s3.put_object(Bucket=bucket, Key="acl", Body=b"")
    tried(s3.get_object_acl, Bucket=bucket, Key="acl")
    tried(s3.put_object_acl, Bucket=bucket, Key="acl", ACL="private")
    tried(s3.put_object_acl, Bucket=bucket, Key="acl", ACL="public-read")
    for name in [name for name in names if name.startswith("DeleteBucket") and name != "DeleteBucket"]:
        every_field(s3, name, bucket, "-")


def every_field(s3, operation, bucket, key):
    """Calls an operation with something in each field that it requires."""
    import botocore

    def example(shape, name):
        if name in ("Bucket", "Key"):
            return bucket if name == "Bucket" else key
        if shape.type_name == "structure":
            required = shape.required_members or list(shape.members)[:1]
            return {member: example(shape.members[member], member) for member in required}
        if shape.type_name == "list":
            return [example(shape.member, name)]
        if shape.type_name == "map":
            return {}
        if shape.type_name in ("integer", "long"):
            return 1
        if shape.type_name == "boolean":
            return True
        if shape.type_name == "blob":
            return b"blob"
        if shape.type_name == "timestamp":
            return datetime.datetime.now(datetime.UTC)
        if name in ("CopySource", "RenameSource"):
            return f"{bucket}/{key}"
        return shape.enum[0] if getattr(shape, "enum", None) else "example"

    shape = s3.meta.service_model.operation_model(operation).input_shape
    parameters = {name: example(shape.members[name], name) for name in shape.required_members} if shape else {}
    tried(getattr(s3, botocore.xform_name(operation)), **parameters)


def whole_model(gateway):
    """Each of the model's operations at least once, also those that the gateway does not have."""
    s3 = gateway.client()
    bucket = "model"
    s3.create_bucket(Bucket=bucket)
    # The second is there so that MinIO, which takes `?publicAccessBlock` for a DeleteBucket, does not delete it.
    for key in ("key", "stays"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"body")
    for name in s3.meta.service_model.operation_names:
        # A bucket of their own: some of them would delete it.
        if name not in ("DeleteBucket", "CreateBucket"):
            every_field(s3, name, bucket, "key")
    every_field(s3, "CreateBucket", "model-two", "key")
    every_field(s3, "DeleteBucket", "model-two", "key")


def only_minio(gateway):
    """What MinIO has and AWS does not."""
    s3 = gateway.client()
    bucket = "only-minio"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="key", Body=b"body")
    for method, target in [
        ("GET", f"/{bucket}?list-type=2&metadata=true"),
        ("GET", f"/{bucket}?versions&metadata=true"),
        ("GET", f"/{bucket}?replication-metrics"),
        ("GET", f"/{bucket}?replication-metrics=2"),
        ("GET", f"/{bucket}?replication-reset-status"),
        ("PUT", f"/{bucket}?replication-reset"),
        ("GET", f"/{bucket}?replication-check"),
        # Of an event that there is not: a stream of those that there are would never end.
        ("GET", f"/{bucket}?events=none"),
        ("GET", "/?events=none"),
        ("GET", f"/{bucket}/key?lambdaArn=arn:minio:s3-object-lambda::none:webhook"),
    ]:
        gateway.raw(method, gateway.signed(method, target), b"" if method == "PUT" else None)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("one.txt", "two.txt"):
            tar.add(__file__, arcname=name)
    extract = {"X-Amz-Meta-Snowball-Auto-Extract": "true"}
    target = gateway.signed("PUT", f"/{bucket}/archive.tar", extract)
    gateway.raw("PUT", target, archive.getvalue(), extract)


def identities(gateway):
    """Every way to prove who asks, and to fail to."""
    s3 = gateway.client()
    bucket, key = "identities", "who asks?.txt"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=key, Body=b"you")
    for signature in ("s3", "s3v4"):
        signer = gateway.client(signature=signature)
        tried(signer.get_object, Bucket=bucket, Key=key)
        tried(signer.put_object, Bucket=bucket, Key="signed " + signature, Body=b"by header")
        for secret in (gateway.secret_key, "wrong-" + gateway.secret_key):
            presigner = gateway.client(signature=signature, secret_key=secret)
            for operation, method, body in [("get_object", "GET", None), ("put_object", "PUT", b"by link")]:
                parameters = {"Bucket": bucket, "Key": key}
                url = presigner.generate_presigned_url(operation, Params=parameters, ExpiresIn=600)
                gateway.raw(method, url.removeprefix(gateway.endpoint), body, {"User-Agent": "link/1"})
        late = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=-60)
        gateway.raw("GET", late.removeprefix(gateway.endpoint))
    for other in (
        gateway.client(secret_key="wrong-" + gateway.secret_key),
        gateway.client(access_key="NOBODYHASTHISKEY0001"),
        gateway.client(signature=UNSIGNED),
        gateway.client(token="no-such-token"),
    ):
        tried(other.list_buckets)
        tried(other.get_object, Bucket=bucket, Key=key)
        tried(other.put_object, Bucket=bucket, Key="refused", Body=b"refused")
        tried(other.delete_objects, Bucket=bucket, Delete={"Objects": [{"Key": key}]})
        tried(other.create_bucket, Bucket="refused")

    sts = gateway.client("sts", signature="v4", s3={})
    issued = tried(sts.assume_role, RoleArn="arn:aws:iam::1:role/role-name-here", RoleSessionName="session")["Credentials"]
    keys = {"access_key": issued["AccessKeyId"], "secret_key": issued["SecretAccessKey"]}
    session = gateway.client(token=issued["SessionToken"], **keys)
    tried(session.get_object, Bucket=bucket, Key=key)
    url = session.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=600)
    gateway.raw("GET", url.removeprefix(gateway.endpoint))
    tried(sts.assume_role_with_web_identity, RoleArn="a" * 20, RoleSessionName="session", WebIdentityToken="no.such.jwt")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    ldap = "Action=AssumeRoleWithLDAPIdentity&Version=2011-06-15&LDAPUsername=someone&LDAPPassword=something"
    gateway.raw("POST", "/", ldap.encode(), form)
    gateway.raw("POST", "/?" + ldap, b"", form)

    post = s3.generate_presigned_post(bucket, "forms/${filename}")
    for fields in (post["fields"], {**post["fields"], "policy": "bm90IGEgcG9saWN5"}):
        body = b"".join(
            b'--edge\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value.encode())
            for name, value in fields.items()
        )
        body += b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a form.txt"\r\n\r\nformed\r\n--edge--\r\n'
        gateway.raw("POST", f"/{bucket}", body, {"Content-Type": "multipart/form-data; boundary=edge"})


def oddities(gateway):
    """Requests that a gateway refuses before it looks at what they ask, and those that are not S3."""
    bucket, key = "identities", "who%20asks%3F.txt"
    scope = "20200101/us-east-1/s3/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={gateway.access_key}/{scope}, SignedHeaders=host, Signature=00"
    for method, target, headers in [
        ("GET", f"/{bucket}/{key}", {"Authorization": authorization}),
        ("GET", f"/{bucket}/{key}", {"Authorization": authorization, "X-Amz-Date": "20200101T000000Z"}),
        ("GET", f"/{bucket}/{key}", {"Authorization": "Basic bm86bm8="}),
        ("GET", f"/{bucket}/{key}", {"Authorization": "Bearer nothing"}),
        ("GET", f"/{bucket}/{key}", {"Pragma": "no-cache", "Cookie": "a=b", "Referer": "https://here.example/?page=1"}),
        ("GET", f"/{bucket}/{key}", {"X-Forwarded-For": "192.0.2.7, 192.0.2.8", "X-Real-Ip": "192.0.2.9"}),
        ("GET", f"/{bucket}/{key}", {"X-Minio-Internal-Odd": "1", "X-Amz-Meta-Long": "m" * 9000}),
        ("GET", f"/{bucket}/../../etc", {}),
        ("GET", f"/{bucket}/{key}?X-Amz-Signature=0&AWSAccessKeyId=0", {"Authorization": authorization}),
        ("GET", f"/{bucket}/{key}?a=1&a=2&b&c=%20%2B+d&versionId=null", {}),
        ("GET", f"/{bucket}//double//slash", {}),
        ("GET", f"/{bucket}/folder/", {}),
        ("GET", f"/{bucket}/100%25", {}),
        ("GET", f"/{bucket}/a+b", {}),
        ("GET", f"/{bucket}/%E0%A4%A", {}),
        ("GET", f"/{bucket}/%ff", {}),
        ("GET", "/Not_A_Bucket!", {}),
        ("GET", "/minio/x", {}),
        ("GET", "/crossdomain.xml", {}),
        ("GET", "/favicon.ico", {"User-Agent": "Mozilla/5.0"}),
        ("GET", f"/{bucket}/{key}", {"User-Agent": "Mozilla/5.0 (X11)", "Accept-Encoding": "gzip"}),
        ("GET", f"/{bucket}?list-type=2", {"User-Agent": "Mozilla/5.0 (X11)", "Accept-Encoding": "gzip"}),
        ("OPTIONS", f"/{bucket}/{key}", {"Origin": "https://here.example", "Access-Control-Request-Method": "GET"}),
        ("GET", f"/{bucket}/{key}", {"Origin": "https://here.example"}),
        ("PATCH", f"/{bucket}/{key}", {}),
        ("POST", f"/{bucket}/{key}", {}),
        ("DELETE", "/", {}),
        ("GET", "/minio/health/live", {}),
        ("GET", "/minio/health/ready", {}),
        ("GET", "/minio/v2/metrics/cluster", {}),
        ("GET", "/minio/admin/v3/info", {}),
        ("PUT", f"/{bucket}/unsigned", {"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}),
    ]:
        gateway.raw(method, target, b"" if method in ("PUT", "POST") else None, headers)
    s3 = gateway.client()
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "in chunks"}, ExpiresIn=600)
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    gateway.raw("PUT", url.removeprefix(gateway.endpoint), None, {"Transfer-Encoding": "chunked"}, chunks)
    tried(s3.list_objects_v2, Bucket=bucket, Prefix="e", StartAfter="a", FetchOwner=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--access-key", required=True)
    parser.add_argument("--secret-key", required=True)
    parser.add_argument("--region", default="us-east-1")
    gateway = Gateway(parser.parse_args())
    for part in (objects, uploads, settings, whole_model, only_minio, identities, oddities):
        part(gateway)


if __name__ == "__main__":
    main()
