"""The awscli client of the end-to-end tests: its own command line code, in this process; prints a JSON line for each
exchange made."""

import contextlib
import os
import pathlib
import sys
import tempfile

import options
import recorder  # before awscli connects anywhere

from awscli import clidriver

MIB = 1024 * 1024


def main():
    arguments = options.parse(__doc__, "awscli-round")
    bucket = arguments.bucket
    os.environ.update(
        AWS_ACCESS_KEY_ID=arguments.access_key,
        AWS_SECRET_ACCESS_KEY=arguments.secret_key,
        AWS_DEFAULT_REGION=arguments.region,
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_MAX_ATTEMPTS="1",
        AWS_PAGER="",
    )

    def aws(*words, expect=0):
        driver = clidriver.create_clidriver()
        recorder.watch(driver.session.get_component("event_emitter"))
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            code = driver.main(["--endpoint-url", arguments.endpoint, *words])
        assert expect is None or code == expect, f"aws {' '.join(words)} ended with {code}, not {expect}"

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "small.txt").write_bytes(b"hello from the command line\n")
        (folder / "parts.bin").write_bytes(b"a" * (9 * MIB))
        aws("s3", "mb", f"s3://{bucket}")
        aws("s3", "ls")
        aws("s3", "cp", str(folder / "small.txt"), f"s3://{bucket}/in a folder/small.txt")
        aws("s3", "cp", str(folder / "parts.bin"), f"s3://{bucket}/parts.bin")
        aws("s3", "ls", f"s3://{bucket}/in a folder/")
        aws("s3", "cp", f"s3://{bucket}/parts.bin", str(folder / "back.bin"))
        assert (folder / "back.bin").stat().st_size == 9 * MIB
        aws("s3", "cp", f"s3://{bucket}/in a folder/small.txt", f"s3://{bucket}/copy.txt")
        aws("s3api", "head-object", "--bucket", bucket, "--key", "copy.txt")
        aws("s3api", "get-object", "--bucket", bucket, "--key", "copy.txt", "--range", "bytes=0-4", str(folder / "range"))
        aws("s3api", "list-objects", "--bucket", bucket)
        aws("s3api", "get-object", "--bucket", bucket, "--key", "not-there", str(folder / "none"), expect=None)
        aws("s3", "rm", f"s3://{bucket}/copy.txt")
        aws("s3", "rm", "--recursive", f"s3://{bucket}")
        aws("s3", "rb", f"s3://{bucket}", expect=None)
    recorder.report()
    sys.stdout.flush()


if __name__ == "__main__":
    main()
