"""Takes ten batches of 16 as a worker, counts the images that it loads, and prints both; the chief takes them before the other begins.

python -m tests.training.distribution.worker_images FOLDER  (with TF_CONFIG)
"""

import json
import sys
import time
from pathlib import Path

from kfpn.config.run import Config, InputConfig
from kfpn.data.pipeline import named_errors, train_batches
from kfpn.training.distribution.cluster import Cluster
from kfpn.training.distribution.replica_batches import distributed_batches
from kfpn.training.distribution.strategy import make_strategy
from tests.training import made_up
from tests.training.distribution.test_replica_batches import CountedSource

if __name__ == "__main__":
    strategy = make_strategy("multi_worker")
    cluster, done = Cluster(strategy), Path(sys.argv[1]) / "done"
    counted = CountedSource(made_up.source(0, 60))
    config = Config(batch_size=16, input=InputConfig(64, 64))
    batches = named_errors(distributed_batches(strategy, lambda share: train_batches(counted, config, 0, share)))
    cluster.watch()
    while not cluster.is_chief and not done.exists():
        time.sleep(0.1)
    taken = [strategy.experimental_local_results(next(batches)["record_index"]) for _ in range(10)]
    rows = [[int(index) for part in parts for index in part.numpy()] for parts in taken]
    done.touch()
    print(json.dumps({"rows": rows, "loaded": len(counted.loaded)}), flush=True)
    cluster.leave()
