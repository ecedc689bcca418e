"""Shares a batch between replicas: equal shares, each of which can be cut into equal parts."""


def usable_replicas(devices: int, batch_size: int, accumulate: int = 1) -> int:
    """Returns the largest number of replicas whose shares of a batch are equal and can be cut into `accumulate` equal parts.

    Args:
        devices: number of devices, the most that is returned.
        batch_size: images of the global batch.
        accumulate: number of parts of a share.

    Returns:
        At least 1, although `accumulate` may not divide the share of a single replica either.
    """
    fitting = (count for count in range(devices, 0, -1) if batch_size % (count * accumulate) == 0)
    return next(fitting, 1)


def idle_devices_line(devices: list[str], count: int, batch_size: int, accumulate: int = 1) -> str:
    """Returns the line that says which devices train and what would use all of them.

    Args:
        devices: names of all devices.
        count: of `usable_replicas`, less than there are devices.
        batch_size: images of the global batch.
        accumulate: number of parts of a share.
    """
    total, unit = len(devices), len(devices) * accumulate
    parts = f" in {accumulate} parts each (accumulate)" if accumulate > 1 else ""
    ways = [f"--batch-size {(batch_size // unit + 1) * unit}"]
    if batch_size % total == 0:  # Shares are equal, but can't be cut into so many parts.
        share, part = batch_size // total, batch_size // (count * accumulate)
        fewer = next(n for n in range(1, share + 1) if share % n == 0 and share // n <= max(1, part))
        ways.insert(0, f"--accumulate {fewer} (the same step)")
    return (
        f"{count} of {total} devices train ({', '.join(devices[:count])}), because more can't share a batch of {batch_size} equally"
        f"{parts}; {' or '.join(ways)} would use all {total}"
    )


def share_of_replica(replicas: int, batch_size: int, accumulate: int = 1) -> int:
    """Returns the number of images of a global batch that each replica gets.

    Args:
        replicas: number of replicas.
        batch_size: images of the global batch.
        accumulate: number of parts that each replica computes its share in.

    Raises:
        ValueError: naming batch sizes that fit, if the replicas can't get equal shares, or a share can't be cut into
            `accumulate` equal parts.
    """
    fitting = _sizes_that_fit(batch_size, replicas * accumulate)
    if batch_size % replicas:
        raise ValueError(
            f"batch_size must be a multiple of the number of replicas ({replicas}), got {batch_size}: all of them take part, so "
            f"use --batch-size {fitting}"
        )
    share = batch_size // replicas
    if share % accumulate:
        divisors = " or ".join(str(n) for n in range(1, share + 1) if share % n == 0)
        raise ValueError(
            f"accumulate must divide each replica's share of batch_size ({share}), got {accumulate}: use --accumulate "
            f"{divisors}, or --batch-size {fitting}"
        )
    return share


def _sizes_that_fit(batch_size: int, unit: int) -> str:
    """Returns the multiples of a unit next to a batch size, such as `12 or 18`."""
    below = batch_size // unit * unit
    return f"{below} or {below + unit}" if below else f"{unit}"


def describe_shares(kind: str, replicas: int, place: str, batch_size: int, accumulate: int = 1) -> str:
    """Returns the first line of a run: strategy, replicas, devices and batch sizes.

    Args:
        kind: value of `strategy`.
        replicas: number of replicas.
        place: where they are, such as `on CPU:0`.
        batch_size, accumulate: as in `share_of_replica`.
    """
    share = share_of_replica(replicas, batch_size, accumulate)
    parts = f" in {accumulate} parts" if accumulate > 1 else ""
    return f"strategy {kind}: {replicas} replica(s) {place}; global batch {batch_size}, {share} a replica{parts}"
