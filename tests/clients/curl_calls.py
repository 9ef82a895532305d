"""The curl client of the end-to-end tests: several transfers a process, so that connections are kept; prints a JSON line
for each transfer made, from curl's own counts."""

import json
import pathlib
import re
import subprocess
import tempfile

import options

MIB = 1024 * 1024


class Curl:
    def __init__(self, arguments):
        self.arguments = arguments
        version = subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True).stdout
        self.user_agent = "curl/" + version.split()[1]
        self.queue = []

    def call(self, op, bucket, key, target, *flags, secret=None):
        """Queues one transfer; `run` makes them all, on one connection where the gateway keeps it."""
        self.queue.append((op, bucket, key, target, flags, secret or self.arguments.secret_key))

    def run(self):
        command = ["curl", "--silent", "--show-error", "--max-time", "120"]
        for number, (_, _, _, target, flags, secret) in enumerate(self.queue):
            command += ["--next"] if number else []
            # Over TLS it would speak HTTP/2 where that is offered, which is not read.
            command += ["--silent", "--show-error", "--max-time", "120", "--path-as-is", "--http1.1"]
            command += [] if "--output" in flags else ["--output", "/dev/null"]
            command += ["--aws-sigv4", f"aws:amz:{self.arguments.region}:s3"]
            command += ["--user", f"{self.arguments.access_key}:{secret}"]
            command += ["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--write-out", "%{json}\n"]
            command += [*flags, self.arguments.endpoint + target]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        lines = done.stdout.splitlines()
        assert len(lines) == len(self.queue), f"{len(self.queue)} transfers, {len(lines)} reports"
        for (op, bucket, key, _, _, _), line in zip(self.queue, lines):
            report = json.loads(line)
            assert report["http_code"], f"{op} {key}: no reply: {line}"
            yield {
                "op": op,
                "bucket": bucket,
                "key": key,
                "status": report["http_code"],
                "sent": report["size_request"] + report["size_upload"],
                "received": report["size_header"] + report["size_download"],
                "user_agent": self.user_agent,
                "access_key": self.arguments.access_key,
                "client": f"{report['local_ip']}:{report['local_port']}",
            }
        self.queue = []


def main():
    arguments = options.parse(__doc__, "curl-round")
    b = arguments.bucket
    curl = Curl(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        small, large, part = folder / "small", folder / "large", folder / "part"
        small.write_bytes(b"hello from curl\n")
        large.write_bytes(b"l" * (3 * MIB))
        part.write_bytes(b"p" * (5 * MIB))
        started = folder / "started"

        curl.call("CreateBucket", b, None, f"/{b}", "--request", "PUT")
        curl.call("ListBuckets", None, None, "/")
        curl.call("HeadBucket", b, None, f"/{b}", "--head")
        curl.call("PutObject", b, "small.txt", f"/{b}/small.txt", "--upload-file", str(small))
        curl.call("PutObject", b, "large.bin", f"/{b}/large.bin", "--upload-file", str(large))
        curl.call("PutObject", b, "a b/ü.txt", f"/{b}/a%20b/%C3%BC.txt", "--upload-file", str(small))
        curl.call("GetObject", b, "small.txt", f"/{b}/small.txt")
        curl.call("GetObject", b, "large.bin", f"/{b}/large.bin")
        curl.call("GetObject", b, "small.txt", f"/{b}/small.txt", "--range", "2-5")
        curl.call("HeadObject", b, "small.txt", f"/{b}/small.txt", "--head")
        curl.call("ListObjectsV2", b, None, f"/{b}?list-type=2")
        curl.call("ListObjects", b, None, f"/{b}?max-keys=2")
        curl.call("CopyObject", b, "copy.txt", f"/{b}/copy.txt", "--request", "PUT", "--header", f"x-amz-copy-source: /{b}/small.txt")
        curl.call("GetObject", b, "not-there", f"/{b}/not-there")
        curl.call("GetObject", b, "small.txt", f"/{b}/small.txt", secret="wrong-" + arguments.secret_key)
        curl.call("CreateMultipartUpload", b, "parts.bin", f"/{b}/parts.bin?uploads=", "--request", "POST", "--output", str(started))
        calls = list(curl.run())
        upload = re.search("<UploadId>(.*?)</UploadId>", started.read_text())
        if upload:
            query = f"partNumber=1&uploadId={upload[1]}"
            curl.call("UploadPart", b, "parts.bin", f"/{b}/parts.bin?{query}", "--upload-file", str(part))
            curl.call("AbortMultipartUpload", b, "parts.bin", f"/{b}/parts.bin?uploadId={upload[1]}", "--request", "DELETE")
        for key in ("small.txt", "large.bin", "copy.txt", "a b/ü.txt"):
            target = key.replace(" ", "%20").replace("ü", "%C3%BC")
            curl.call("DeleteObject", b, key, f"/{b}/{target}", "--request", "DELETE")
        curl.call("DeleteBucket", b, None, f"/{b}", "--request", "DELETE")
        calls += curl.run()
    for call in calls:
        print(json.dumps(call))


if __name__ == "__main__":
    main()
