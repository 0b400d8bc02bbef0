import os

# Many small networks on few cores: threads that wait for each other cost more than they bring. Before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
