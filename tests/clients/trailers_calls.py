"""boto3 as it is set up by default, over TLS: uploads in the chunks of aws-chunked, inside those of HTTP, with the checksum behind
them. The last ones are larger than what is copied of a body that nobody follows (1 MiB)."""

import boto3_calls
import options
import recorder

SIZES = [0, 1, 1000, 16 * 1024, 16 * 1024 + 1, 300_000, 900_000, 8 * 1024 * 1024 + 1, 24 * 1024 * 1024]


def main():
    arguments = options.parse(__doc__, "trailers-round")
    bucket = arguments.bucket
    s3 = boto3_calls.client(arguments, arguments.secret_key)

    s3.create_bucket(Bucket=bucket)
    for size in SIZES:
        body = b"\r\n0\r\n" * (size // 5) + b"x" * (size % 5)
        s3.put_object(Bucket=bucket, Key=f"of-{size}", Body=body)
        assert s3.get_object(Bucket=bucket, Key=f"of-{size}")["Body"].read() == body
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", ChecksumAlgorithm="CRC32")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"p" * 6_000_000)
    parts = [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}]
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})

    for exchange in recorder.exchanges():
        if exchange.op in ("PutObject", "UploadPart"):
            assert exchange.header(b"x-amz-trailer"), exchange.request_head
            assert exchange.header(b"transfer-encoding") == "chunked", exchange.request_head
    recorder.report()


if __name__ == "__main__":
    main()
