"""Laws of row readers: each pass has every row once, shared among processes, and any position can be gone on from."""

import itertools
import json

import pytest
from datasets import Dataset, IterableDataset

from ditar_hf.training.audio import UnusableAudioError
from ditar_hf.training.row_readers import make_reader


def rows_of_shards(shards):
    for shard in shards:
        for row in range(3):
            yield {"id": f"{shard}-{row}"}


TABLE = Dataset.from_list(list(rows_of_shards(range(4))))
STREAM = IterableDataset.from_generator(rows_of_shards, gen_kwargs={"shards": list(range(4))})
SOURCES = pytest.mark.parametrize("rows", [TABLE, STREAM], ids=["table", "stream"])


def take(reader, number):
    return [next(reader)["id"] for _ in range(number)]


def passes(reader):
    """Ids of one pass after the other."""
    epoch, ids = 0, []
    while True:
        row = next(reader)["id"]
        if reader.epoch > epoch:
            yield ids
            epoch, ids = reader.epoch, []
        ids.append(row)


# of a table, which need not divide, passes of several processes overlap: see the next but one
@pytest.mark.parametrize("rows, world_size", [(TABLE, 1), (STREAM, 1), (STREAM, 2), (STREAM, 3), (STREAM, 5)])
def test_each_pass_has_every_row_once(rows, world_size):
    readers = [passes(make_reader(rows, "source", "seed", rank, world_size)) for rank in range(world_size)]
    for _ in range(3):
        assert sorted(itertools.chain(*map(next, readers))) == sorted(TABLE["id"])


@pytest.mark.parametrize("world_size, num_read", [(2, 6), (3, 6), (4, 3)])
def test_no_process_reads_the_files_of_another(world_size, num_read):
    read = []

    def counted(shards):
        for row in rows_of_shards(shards):
            read.append(row["id"])
            yield row

    stream = IterableDataset.from_generator(counted, gen_kwargs={"shards": list(range(4))})
    next(passes(make_reader(stream, "source", "seed", 0, world_size)))
    assert num_read <= len(read) <= num_read + 3  # the first of the next pass was read to see the end


def test_a_table_that_does_not_divide_still_gives_every_row_once_in_a_pass():
    readers = [make_reader(TABLE.select(range(11)), "source", "seed", rank, 2) for rank in range(2)]
    drawn = itertools.chain(*zip(*(take(reader, 33) for reader in readers), strict=True))
    for _ in range(6):
        assert len(set(itertools.islice(drawn, 11))) == 11


@SOURCES
def test_orders_differ_from_pass_to_pass_and_from_seed_to_seed(rows):
    reader = make_reader(rows, "source", "seed", 0, 1)
    first, second = take(reader, 12), take(reader, 12)
    assert first != second
    assert first == take(make_reader(rows, "source", "seed", 0, 1), 12)
    assert first != take(make_reader(rows, "source", "another", 0, 1), 12)


@SOURCES
@pytest.mark.parametrize("rank, world_size", [(0, 1), (1, 2)])
def test_any_position_can_be_gone_on_from(rows, rank, world_size):
    whole = take(make_reader(rows, "source", "seed", rank, world_size), 30)
    for number in range(30):
        reader = make_reader(rows, "source", "seed", rank, world_size)
        assert take(reader, number) == whole[:number]
        state = json.loads(json.dumps(reader.state()))  # as a checkpoint keeps it
        again = make_reader(rows, "source", "seed", rank, world_size, state)
        assert again.state() == state
        assert take(again, 30 - number) == whole[number:]


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="there is no row in source"):
        make_reader(TABLE.select([]), "source", "seed", 0, 1)
    empty = IterableDataset.from_generator(rows_of_shards, gen_kwargs={"shards": []})
    with pytest.raises(UnusableAudioError, match="there is no speech in source"):
        next(make_reader(empty, "source", "seed", 0, 1))
