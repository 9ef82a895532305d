"""The boto3 client of the end-to-end tests: one round of calls; prints a JSON line for each exchange made."""

import io

import options
import recorder  # before boto3 connects anywhere

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

MIB = 1024 * 1024
ODD_KEY = "reports/2025 q1/ü+plus&more=50%/naïve.txt"


def client(arguments, secret):
    session = boto3.session.Session()
    recorder.watch(session._session.get_component("event_emitter"))
    return session.client(
        "s3",
        endpoint_url=arguments.endpoint,
        aws_access_key_id=arguments.access_key,
        aws_secret_access_key=secret,
        region_name=arguments.region,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=60),
    )


def tolerated(call, **parameters):
    """Makes a call that this gateway may refuse: refused or not, it has a record."""
    try:
        reply = call(**parameters)
    except ClientError:
        return
    if "Body" in reply:
        reply["Body"].read()


def main():
    arguments = options.parse(__doc__, "boto3-round")
    bucket = arguments.bucket
    s3 = client(arguments, arguments.secret_key)

    s3.create_bucket(Bucket=bucket)
    s3.head_bucket(Bucket=bucket)
    s3.list_buckets()
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    s3.put_object(Bucket=bucket, Key="small.txt", Body=b"hello", ContentType="text/plain")
    s3.put_object(Bucket=bucket, Key=ODD_KEY, Body=b"odd" * 100)
    s3.put_object(Bucket=bucket, Key="large.bin", Body=b"x" * (3 * MIB))
    assert s3.get_object(Bucket=bucket, Key="small.txt")["Body"].read() == b"hello"
    assert s3.get_object(Bucket=bucket, Key=ODD_KEY)["Body"].read() == b"odd" * 100
    assert len(s3.get_object(Bucket=bucket, Key="large.bin")["Body"].read()) == 3 * MIB
    assert s3.get_object(Bucket=bucket, Key="small.txt", Range="bytes=1-3")["Body"].read() == b"ell"
    s3.head_object(Bucket=bucket, Key="small.txt")
    s3.list_objects_v2(Bucket=bucket, Prefix="reports/")
    s3.list_objects(Bucket=bucket)
    s3.copy_object(Bucket=bucket, Key="copy.txt", CopySource={"Bucket": bucket, "Key": "small.txt"})

    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts.bin")["UploadId"]
    parts = []
    for number, size in ((1, 5 * MIB), (2, 1000)):
        part = s3.upload_part(Bucket=bucket, Key="parts.bin", UploadId=upload, PartNumber=number, Body=b"p" * size)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    tolerated(s3.list_parts, Bucket=bucket, Key="parts.bin", UploadId=upload)
    s3.complete_multipart_upload(Bucket=bucket, Key="parts.bin", UploadId=upload, MultipartUpload={"Parts": parts})
    upload = s3.create_multipart_upload(Bucket=bucket, Key="given-up.bin")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key="given-up.bin", UploadId=upload)

    # The transfer manager: threads, several connections at once.
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(b"t" * (16 * MIB)), bucket, "transfer.bin", Config=config)
    s3.download_fileobj(bucket, "transfer.bin", io.BytesIO(), Config=config)

    tolerated(s3.get_object_tagging, Bucket=bucket, Key="small.txt")
    tolerated(s3.get_bucket_location, Bucket=bucket)
    tolerated(s3.get_object, Bucket=bucket, Key="not-there")
    tolerated(s3.head_object, Bucket=bucket, Key="not-there")
    tolerated(s3.get_object, Bucket="no-such-bucket-here", Key="small.txt")
    tolerated(client(arguments, "wrong-" + arguments.secret_key).get_object, Bucket=bucket, Key="small.txt")

    s3.delete_object(Bucket=bucket, Key="copy.txt")
    rest = ["empty", "small.txt", ODD_KEY, "large.bin", "parts.bin", "transfer.bin"]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in rest]})
    tolerated(s3.delete_bucket, Bucket=bucket)
    recorder.report()


if __name__ == "__main__":
    main()
