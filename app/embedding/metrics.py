"""The metrics of embedding: queue length, batch sizes, times."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class EmbeddingMetrics:
    """Prometheus metrics; times in seconds, everything else counts crops."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_length = Gauge(
            "passerby_embedding_queue_length", "Crops that wait for the engine", registry=registry
        )
        self._queues: set[Callable[[], int]] = set()
        self.queue_length.set_function(lambda: sum(length() for length in self._queues))
        self.batch_size = Histogram(
            "passerby_embedding_batch_size",
            "Crops that the engine was given at once",
            buckets=(1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 256),
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "passerby_embedding_queue_seconds",
            "How long a crop waited for the engine, by priority",
            ["priority"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.engine_seconds = Histogram(
            "passerby_embedding_engine_seconds",
            "How long the engine took for a batch",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "passerby_embedding_decode_seconds",
            "How long it took to check, decode and resize one picture",
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
            registry=registry,
        )
        self.cut_seconds = Histogram(
            "passerby_embedding_cut_seconds",
            "How long it took to check and decode one frame and to cut its crops out",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=registry,
        )
        self.rejected = Counter(
            "passerby_embedding_rejected",
            "Files or boxes that were not embedded: `queue-full`, or why the picture cannot be used",
            ["reason"],
            registry=registry,
        )
        self.failed = Counter("passerby_embedding_failed", "Crops that the engine failed on", registry=registry)
        self.dropped = Counter(
            "passerby_embedding_dropped", "Crops that were cancelled before the engine took them", registry=registry
        )

    def watch(self, queue: Callable[[], int]) -> None:
        """Include a queue in the queue length; there are several during a switch of the model."""
        self._queues.add(queue)

    def forget(self, queue: Callable[[], int]) -> None:
        """Exclude a queue from the queue length."""
        self._queues.discard(queue)
