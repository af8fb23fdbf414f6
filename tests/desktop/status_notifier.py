"""The panel's side of a tray icon over D-Bus: a watcher to register at, and a client that reads and clicks menus."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from dbus_fast import Message, MessageFlag, MessageType, PropertyAccess, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusInt32, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

WATCHER = "org.kde.StatusNotifierWatcher"
ITEM = "org.kde.StatusNotifierItem"
MENU = "com.canonical.dbusmenu"
BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"

T = TypeVar("T")
Node = dict[str, Any]


class _Watcher(ServiceInterface):
    """The minimum that an icon needs to register; the bus client sees the caller."""

    def __init__(self) -> None:
        super().__init__(WATCHER)

    @dbus_method()
    def RegisterStatusNotifierItem(self, service: DBusStr) -> None:  # noqa: N802
        pass

    @dbus_property(access=PropertyAccess.READ)
    def IsStatusNotifierHostRegistered(self) -> DBusBool:  # noqa: N802
        return True

    @dbus_property(access=PropertyAccess.READ)
    def ProtocolVersion(self) -> DBusInt32:  # noqa: N802
        return 0


class Panel:
    """A panel's view of the tray icons on one bus; every call waits for its answer, with a limit."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-panel", daemon=True)
        self._thread.start()
        self._registered: list[tuple[str, str]] = []
        self._watching = False
        self.signals: list[tuple[str, list[Any]]] = []
        self._bus: Any = self._wait(self._connect(address))
        self.owner = ""
        self.path = ""
        self.menu = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bus."""
        self._wait(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def watch(self) -> None:
        """Become the watcher at which icons register."""
        self._watching = True
        self._wait(self._own())

    def find_icon(self) -> bool:
        """Return whether an icon is registered; the calls below are about the first one."""
        if not self._registered and not self._watching and self._owned():
            listed = self._get(WATCHER, "/StatusNotifierWatcher", WATCHER, "RegisteredStatusNotifierItems")
            self._registered = [(name[: name.index("/")], name[name.index("/") :]) for name in listed if "/" in name]
        if self._registered:
            self.owner, self.path = self._registered[0]
            self.menu = self.property("Menu")
        return bool(self._registered)

    def property(self, name: str) -> Any:
        """Return a property of the icon."""
        return self._get(self.owner, self.path, ITEM, name)

    def rows(self) -> list[Node]:
        """Return the menu: each row a dict with id, label, and if given enabled, toggle-state, children."""
        _revision, root = self._call(self.owner, self.menu, MENU, "GetLayout", "iias", [0, -1, []])
        return list(_node(root).get("children", []))

    def labels(self) -> list[str]:
        """Return the texts of the menu's first level, separators left out."""
        return [row["label"] for row in self.rows() if "label" in row]

    def row(self, *path: str) -> Node:
        """Return the row whose label is, else starts with, the last of `path`, below the rows before it."""
        rows = self.rows()
        found: Node = {}
        for start in path:
            likely = [row for row in rows if row.get("label", "").startswith(start)]
            found = next((row for row in likely if row["label"] == start), likely[0])
            rows = found.get("children", [])
        return found

    def click(self, *path: str) -> None:
        """Click a row as a panel does."""
        self._call(
            self.owner, self.menu, MENU, "Event", "isvu", [self.row(*path)["id"], "clicked", Variant("s", ""), 0]
        )

    def click_quit(self) -> None:
        """Click `Quit` without waiting for the answer, as the program may end before it is sent."""
        self._wait(
            self._send(
                Message(
                    destination=self.owner,
                    path=self.menu,
                    interface=MENU,
                    member="Event",
                    signature="isvu",
                    body=[self.row("Quit")["id"], "clicked", Variant("s", ""), 0],
                    flags=MessageFlag.NO_REPLY_EXPECTED,
                )
            )
        )

    def _owned(self) -> bool:
        return bool(self._call(BUS, "/org/freedesktop/DBus", BUS, "NameHasOwner", "s", [WATCHER])[0])

    def _get(self, owner: str, path: str, interface: str, name: str) -> Any:
        return self._call(owner, path, PROPERTIES, "Get", "ss", [interface, name])[0].value

    def _call(self, owner: str, path: str, interface: str, member: str, signature: str, body: list[Any]) -> list[Any]:
        message = Message(
            destination=owner, path=path, interface=interface, member=member, signature=signature, body=body
        )
        reply = self._wait(self._bus.call(message))
        if reply.message_type is MessageType.ERROR:
            raise RuntimeError(f"{member}: {reply.error_name}: {reply.body}")
        return list(reply.body)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, 10), self._loop).result(12)

    async def _connect(self, address: str) -> Any:
        bus = await MessageBus(bus_address=address).connect()
        bus.add_message_handler(self._seen)
        for interface in (MENU, ITEM):
            rule = f"type='signal',interface='{interface}'"
            await bus.call(
                Message(
                    destination=BUS,
                    path="/org/freedesktop/DBus",
                    interface=BUS,
                    member="AddMatch",
                    signature="s",
                    body=[rule],
                )
            )
        return bus

    async def _send(self, message: Message) -> None:
        await self._bus.send(message)

    async def _own(self) -> None:
        self._bus.export("/StatusNotifierWatcher", _Watcher())
        await self._bus.request_name(WATCHER)

    async def _leave(self) -> None:
        self._bus.disconnect()
        await self._bus.wait_for_disconnect()

    def _seen(self, message: Message) -> None:
        if message.interface == WATCHER and message.member == "RegisterStatusNotifierItem":
            service = message.body[0]  # an object path of the sender, or a bus name
            place = (message.sender or "", service) if service.startswith("/") else (service, "/StatusNotifierItem")
            self._registered.append(place)
        elif message.message_type is MessageType.SIGNAL and message.interface in (MENU, ITEM):
            self.signals.append((message.member or "", list(message.body)))


def _node(raw: list[Any]) -> Node:
    number, properties, children = raw
    node: Node = {"id": number, **{name: value.value for name, value in properties.items()}}
    if "label" in node:  # a lone underscore marks a mnemonic, a doubled one is a letter; spaces keep room
        node["label"] = node["label"].replace("__", "\0").replace("_", "").replace("\0", "_").rstrip()
    if children:
        node["children"] = [_node(child.value) for child in children]
    return node
