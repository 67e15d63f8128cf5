"""A server of S3 on the loopback address, and its buckets, for the tests of what is kept elsewhere."""

import logging
import urllib.request
from contextlib import contextmanager

import fsspec
import pytest

OPTIONS = {"key": "own", "secret": "secret"}


@contextmanager
def server():
    """Serve S3, with a bucket named "bucket"; what fsspec opens at s3:// is there meanwhile. Gives the address."""
    served = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    here = served.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    here.start()
    address = "http://{}:{}".format(*here.get_host_and_port())
    before = fsspec.config.conf.pop("s3", None)
    fsspec.config.conf["s3"] = OPTIONS | {"endpoint_url": address}
    try:
        s3fs.S3FileSystem().mkdir("bucket")
        yield address
    finally:
        del fsspec.config.conf["s3"]
        if before is not None:
            fsspec.config.conf["s3"] = before
        s3fs.S3FileSystem.clear_instance_cache()
        here.stop()


@contextmanager
def allowed(address, *actions):
    """Be somebody who may do these things alone."""
    import boto3
    import s3fs

    iam = boto3.client(
        "iam",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="own",
        aws_secret_access_key="secret",
    )
    user = f"user-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=user)
    statement = f'{{"Effect": "Allow", "Action": {list(actions)}, "Resource": "*"}}'.replace("'", '"')
    policy = f'{{"Version": "2012-10-17", "Statement": [{statement}]}}'
    iam.put_user_policy(UserName=user, PolicyName="some", PolicyDocument=policy)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    own = fsspec.config.conf["s3"]
    fsspec.config.conf["s3"] = own | {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    s3fs.S3FileSystem.clear_instance_cache()
    _checked(address, "0")
    try:
        yield
    finally:
        _checked(address, "inf")
        fsspec.config.conf["s3"] = own
        s3fs.S3FileSystem.clear_instance_cache()


def _checked(address, after):
    request = urllib.request.Request(
        f"{address}/moto-api/reset-auth", data=after.encode(), headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(request).read()
