"""``python -m flask_shop``: the shop beside a local stack, on http://127.0.0.1:5001 (or ``--port``)."""

import argparse
import json
from pathlib import Path

from sqlalchemy import create_engine, make_url

from flask_shop.app import create_app
from holdfast.recording import Holdfast


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flask_shop", description=__doc__)
    parser.add_argument("--stack", type=Path, default=Path(".holdfast/stack.json"), help="what 'make up' has written")
    parser.add_argument("--tenant", default="demo", help="whose events these are; 'demo' is the local stack's")
    parser.add_argument("--port", type=int, default=5001)
    options = parser.parse_args()
    try:
        stack = json.loads(options.stack.read_text())
    except OSError as exc:
        parser.error(
            f"{options.stack} cannot be read ({exc.strerror}): start the stack with 'make up', or name its file"
        )
    engine = create_engine(make_url(stack["database_url"]).set(drivername="postgresql+psycopg2"))
    holdfast = Holdfast(tenant=options.tenant, redis_url=stack["redis_url"], broker_url=stack["broker_url"])
    create_app(engine, holdfast).run(port=options.port)


if __name__ == "__main__":
    main()
