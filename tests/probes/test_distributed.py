"""Objects are exchanged between processes by gloo, where the training's backend takes no CPU tensors."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import Script

from fulgurite.callbacks.framework.exchange import exchange
from fulgurite.probes.distributed import broadcast, gather, host_group, merge_processes, shard
from fulgurite.probes.moments import Moments


def main() -> None:
    """One of two processes whose backend is for GPUs alone, as NCCL is."""

    def refusing(store, rank, size, timeout):
        return dist.ProcessGroupGloo(store, rank, size, timeout)

    dist.Backend.register_backend("refusing", refusing, devices=["cuda"])
    rank = int(os.environ["LOCAL_RANK"])
    place = f"file://{os.environ['STORE']}"
    dist.init_process_group("refusing", init_method=place, rank=rank, world_size=2)
    with pytest.raises(RuntimeError, match="cpu"):
        dist.all_reduce(torch.ones(1))
    assert gather({"from": rank}) == ([{"from": 0}, {"from": 1}] if rank == 0 else [])
    assert broadcast(f"sent by {rank}") == "sent by 0"
    moments, values = Moments([("a", "a")]), torch.arange(12.0).view(6, 2)
    ids = torch.tensor(list(shard(6)))
    moments.update(ids, {"a": values[ids]})
    merge_processes(moments)
    whole = Moments([("a", "a")])
    whole.update(torch.arange(6), {"a": values})
    assert moments.count == 6
    torch.testing.assert_close(moments.mean("a"), whole.mean("a"))
    torch.testing.assert_close(moments.covariance("a"), whole.covariance("a"))
    failure, found = exchange(lambda: rank, lambda shares: len(shares))
    assert failure is None
    assert found == 2
    assert host_group() is host_group()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.ranks
def test_a_backend_that_takes_no_tensors_of_the_cpu_is_no_obstacle(tmp_path: Path):
    store = str(tmp_path / "store")
    both = [Script(__file__, LOCAL_RANK=str(rank), STORE=store) for rank in range(2)]
    for done in [one.ended(120) for one in both]:
        assert done.returncode == 0, done.stderr


def test_a_single_process_broadcasts_to_itself():
    assert gather(3) == [3]
    assert broadcast(3) == 3
    assert shard(3) == range(0, 3, 1)


if __name__ == "__main__":
    main()
