"""Programs that run in the peers' own environments. Two variables tell them where the servers are: ``BENCH_BROKER_URL`` and
``BENCH_DATABASE_URL``. ``python -m bench.peers.workers.<name> enqueue <task> <messages>`` fills the queue.
"""
