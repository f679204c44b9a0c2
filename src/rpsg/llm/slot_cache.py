"""A preallocated key-value cache whose rows are slots that sequences enter and leave."""

import weakref
from collections.abc import Sequence
from typing import cast

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

_CAPACITY_STEP = 32


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, one row a slot, each row filled up to its own length.

    The matrix kernel copies what is not dense, so all positions are handed out, and their number
    follows the longest sequence.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, cache: "SlotCache") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Not owned: in a cycle, gigabytes would wait for the garbage collector.
        self._cache: SlotCache = weakref.proxy(cache)
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Takes memory for the longest sequences that may come."""
        slots, most = self._cache.n_slots, self._cache.most
        self._key_room = key_states.new_empty(slots * key_states[0, :, 0].numel() * most)
        self._value_room = value_states.new_empty(slots * value_states[0, :, 0].numel() * most)
        self._heads = key_states.shape[1]
        self._take_room(self._cache.capacity)
        self.keys.zero_()
        self.values.zero_()

    def resize(self, capacity: int) -> None:
        """Changes the number of positions and keeps what fits."""
        # Within memory that is already mapped: fresh pages cost more than the copy.
        kept = min(capacity, self._cache.capacity)
        keys, values = self.keys[:, :, :kept].clone(), self.values[:, :, :kept].clone()
        self._take_room(capacity)
        for states, old in ((self.keys, keys), (self.values, values)):
            states[:, :, :kept] = old
            states[:, :, kept:] = 0

    def _take_room(self, capacity: int) -> None:
        slots, heads, most = self._cache.n_slots, self._heads, self._cache.most
        n_keys, n_values = (len(room) // most * capacity for room in (self._key_room, self._value_room))
        self.keys = self._key_room[:n_keys].view(slots, heads, capacity, -1)
        self.values = self._value_room[:n_values].view(slots, heads, capacity, -1)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores the state of one new token a row; returns all of those rows."""
        n = key_states.shape[0]
        rows, positions = (index.to(key_states.device) for index in self._cache.places)
        self.keys[rows, :, positions] = key_states[:, :, 0]
        self.values[rows, :, positions] = value_states[:, :, 0]
        return self.keys[:n], self.values[:n]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions to be masked, and where they begin."""
        del query_length
        return self._cache.capacity, 0

    def get_seq_length(self) -> int:
        """Positions before the new token."""
        return self._cache.capacity - 1

    def get_max_length(self) -> int:
        """Positions there are."""
        return self._cache.capacity


class SlotCache(Cache):
    """A cache whose row i holds the sequence in slot i; `positions` is each one's last position.

    Positions count from `start`: what all sequences begin with may be kept elsewhere, once for all slots.
    They are counted on the processor, so that nothing waits for a GPU to know them; `places` is their copy
    where the model computes.
    """

    def __init__(
        self, n_layers: int, n_slots: int, longest: int, *, start: int = 0, device: torch.device | None = None
    ) -> None:
        self.n_slots = n_slots
        self.start = start
        self.most = _round_up(longest)
        self.capacity = 0
        self.positions = torch.zeros(n_slots, dtype=torch.long)
        self._device = device or torch.device("cpu")
        self._rows = torch.arange(n_slots, device=self._device)
        self.places = (self._rows[:0], self._rows[:0])
        self.slot_layers = [SlotLayer(self) for _ in range(n_layers)]
        super().__init__(layers=list(self.slot_layers))

    def advance(self, n: int) -> torch.Tensor:
        """Makes room for one more token in each of the first n slots; returns the tokens' positions."""
        self.positions[:n] += 1
        self.fit(int(self.positions[:n].max()) + 1)
        self.places = (self._rows[:n], self.positions[:n].to(self._device))
        return self.places[1]

    def fit(self, width: int) -> None:
        """Makes room for `width` positions and gives back what is far more."""
        if self.capacity - 2 * _CAPACITY_STEP <= width <= self.capacity:
            return
        capacity = _round_up(width)
        for layer in self.slot_layers:
            if layer.keys is not None:
                layer.resize(capacity)
        self.capacity = capacity

    def fill(
        self,
        first: int,
        prefilled: DynamicCache,
        rows: torch.Tensor,
        lengths: Sequence[int],
    ) -> None:
        """Copies prompts read with right padding into slots: row `rows[i]` into slot `first + i`."""
        end = first + len(lengths)
        lengths = [length - self.start for length in lengths]
        self.fit(max([*lengths, *(self.positions[:first] + 1).tolist()]))
        for layer, source in zip(self.slot_layers, prefilled.layers, strict=True):
            keys, values = (states[:, :, self.start :] for states in states_of(source))
            if layer.keys is None:
                layer.lazy_initialization(keys, values)
            width = keys.shape[2]
            layer.keys[first:end, :, :width] = keys[rows]
            layer.values[first:end, :, :width] = values[rows]
        self.positions[first:end] = torch.tensor(lengths) - 1

    def move(self, source: int, target: int) -> None:
        """Moves a sequence to another slot."""
        length = int(self.positions[source]) + 1
        for layer in self.slot_layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]
        self.positions[target] = self.positions[source]


def _round_up(width: int) -> int:
    return -(-width // _CAPACITY_STEP) * _CAPACITY_STEP


def states_of(layer: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the keys and values of a layer of any cache."""
    attention = cast("CacheLayerMixin", layer)
    return cast("torch.Tensor", attention.keys), cast("torch.Tensor", attention.values)
