"""Start servers, say their process ids and addresses in a line of JSON, and wait to be killed. Argument: a folder."""

import json
import os
import sys
import time
from pathlib import Path

from holdfast.local import guard
from holdfast.local.process import Guarded
from holdfast.local.servers import Postgres, Valkey

if sys.argv[2:] == ["as-nobody"]:
    guard._drop_to_nobody()

folder = Path(sys.argv[1])
postgres, valkey = Postgres(folder / "postgres", is_durable=False), Valkey(folder / "redis")
postgres.start()
valkey.start()
parent = Guarded("parent", log=folder / "parent.log", grace_seconds=1)
parent.start(["/bin/sh", "-c", "trap '' TERM; sleep 300 & wait; sleep 300"], os.environ)  # deaf, and with a child
told = {
    "uid": os.geteuid(),
    "pids": [postgres.process.pid, valkey.process.pid, parent.pid],
    "answer": postgres.execute("SELECT 42"),
}
print(json.dumps(told), flush=True)
time.sleep(300)
