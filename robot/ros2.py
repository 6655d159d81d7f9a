"""ROS 2: a node with topics of plain records. The only file that imports rclpy.

Robot and client use it from both ends. Every link has a context and a thread of its own and leaves
nothing behind when it is closed.
"""

import contextlib
import importlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from robot import messages
from robot.interface import RobotError
from robot.presets import Reliability

_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_environment = threading.Lock()


def available() -> str:
    """Why ROS 2 cannot be used here, in words; empty if it can."""
    try:
        _import("rclpy")
        for module, _ in messages.TYPES.values():
            _import(module)
    except RobotError as error:
        return str(error)
    return ""


def _import(name: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            # Type supports come with a parser that imports what Python has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            if name != "rclpy":
                importlib.import_module("rosidl_generator_py")
            return importlib.import_module(name)
    except ImportError as error:
        raise RobotError(
            f"ROS 2 is not here ({error}): source a system ROS 2 that has {name.partition('.')[0]},"
            " or pip install 'realdex_jax[ros]'"
        ) from error


class Link:
    """A node with topics of plain records. Callbacks run one at a time, in the link's thread."""

    def __init__(self, name: str, *, local: bool = False, domain_id: int | None = None) -> None:
        """Starts node and thread.

        Args:
            name: Of the node.
            local: Finds nodes on this machine alone.
            domain_id: Of the network's; `ROS_DOMAIN_ID` if None.

        Raises:
            RobotError: ROS 2 is not installed, or its network cannot be used.
        """
        self._rclpy = rclpy = _import("rclpy")
        executors, node = _import("rclpy.executors"), _import("rclpy.node")
        self._qos = _import("rclpy.qos")
        self.context = rclpy.Context()
        try:
            with _discovery(local):
                rclpy.init(
                    context=self.context,
                    domain_id=domain_id,
                    signal_handler_options=_import("rclpy.signals").SignalHandlerOptions.NO,
                )
                self.node = node.Node(
                    name,
                    context=self.context,
                    use_global_arguments=False,
                    enable_rosout=False,
                    start_parameter_services=False,
                )
        except Exception as error:  # rclpy's errors have no common class
            if self.context.ok():
                self.context.try_shutdown()
            raise RobotError(f"ROS 2 does not start a node: {error}") from error
        self._executor = executors.SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self.broken = ""
        """What ended the thread, if anything did."""
        self._thread = threading.Thread(target=self._spin, name=f"ros2 {name}", daemon=True)
        self._thread.start()

    def now_s(self) -> float:
        """The clock of message stamps, seconds since 1970."""
        return time.time()

    def monotonic_s(self) -> float:
        """The clock by which messages come, seconds."""
        return time.monotonic()

    def sender(
        self,
        topic: str,
        kind: messages.Kind,
        reliability: Reliability = "reliable",
        depth: int = 10,
    ) -> Callable[[Any, float], None]:
        """A function that publishes a record with a stamp (s); a trajectory must be finite."""
        message_type = self._type(kind)
        publisher = self.node.create_publisher(
            message_type, topic, self._profile(reliability, depth)
        )
        module, name = messages.POINT
        make_point = getattr(_import(module), name)

        def send(record: Any, stamp_s: float) -> None:
            message = message_type()
            messages.encode(kind, record, stamp_s, message, make_point)
            publisher.publish(message)

        return send

    def listen(
        self,
        topic: str,
        kind: messages.Kind,
        callback: Callable[[Any, float], None],
        reliability: Reliability = "reliable",
        depth: int = 10,
    ) -> Callable[[], None]:
        """Calls back with every record and its stamp (s); returns what ends that."""
        subscription = self.node.create_subscription(
            self._type(kind),
            topic,
            lambda message: callback(*messages.decode(kind, message)),
            self._profile(reliability, depth),
        )

        def end() -> None:
            if not self.closed:
                self.node.destroy_subscription(subscription)

        return end

    def every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls back again and again."""
        self.node.create_timer(seconds, callback)

    def publishers(self, topic: str) -> int:
        """How many nodes publish there."""
        return self.node.count_publishers(topic)

    def subscribers(self, topic: str) -> int:
        """How many nodes listen there."""
        return self.node.count_subscribers(topic)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.is_set()

    def close(self) -> None:
        """Ends thread, node and context; may be called twice, but not from a callback."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._executor.wake()
        self._thread.join(timeout=5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _spin(self) -> None:
        try:
            while not self._closing.is_set():
                self._executor.spin_once(timeout_sec=0.1)
        except Exception as error:  # whatever a callback raised: told, not lost in a thread
            self.broken = f"{type(error).__name__}: {error}"

    def _type(self, kind: messages.Kind) -> Any:
        module, name = messages.TYPES[kind]
        return getattr(_import(module), name)

    def _profile(self, reliability: Reliability, depth: int) -> Any:
        policy = self._qos.ReliabilityPolicy
        chosen = policy.RELIABLE if reliability == "reliable" else policy.BEST_EFFORT
        return self._qos.QoSProfile(depth=depth, reliability=chosen)


@contextlib.contextmanager
def _discovery(local: bool) -> Iterator[None]:
    """Restricts discovery while a context starts; what was set stays set afterwards."""
    with _environment:
        before = os.environ.get(_RANGE)
        if local:
            os.environ[_RANGE] = "LOCALHOST"
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(_RANGE, None)
            else:
                os.environ[_RANGE] = before
