"""The card: everything that was measured of a machine, and what follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from bertd_bench.hardware.cores import Cores
from bertd_bench.hardware.memory import Bandwidth
from bertd_bench.hardware.products import LinearShape, Product, ProductPrecision
from bertd_bench.hardware.roofline import Roof, RooflinePoint
from bertd_bench.hardware.ways import Way
from bertd_bench.harness.machine import Machine
from bertd_bench.harness.noise import Noise


class ModelCard(BaseModel, frozen=True):
    """What a bundle does on this machine.

    Attributes:
        name: of the model.
        precision: of the bundle.
        linears: its products.
        file_bytes: of the weights' file, embeddings included.
        points: the engine by tokens of a batch, for the roofline.
        ways: rates by lanes, threads and texts of a batch.
    """

    name: str
    precision: str
    linears: list[LinearShape]
    file_bytes: int
    points: list[RooflinePoint]
    ways: list[Way]

    @property
    def kind(self) -> ProductPrecision:
        """Of the numbers that its products are of."""
        return "int8" if self.precision == "int8" else "fp32"

    @property
    def weight_bytes(self) -> int:
        """Of the products alone."""
        width = 1 if self.kind == "int8" else 4
        return sum(linear.weight_bytes(width) for linear in self.linears)

    @property
    def best(self) -> Way:
        """The way that answers most texts a second."""
        return max(self.ways, key=lambda way: way.rate)


class Card(BaseModel, frozen=True):
    """One run of `bertd bench hardware`.

    Attributes:
        command: what makes it again.
        provider: what computed products and models.
        mix: lengths of the texts of which rates are, in tokens.
        price_per_hour: of the machine, in any currency; None if nobody said.
        skipped: what was not measured; why.
    """

    benchmark: Literal["hardware"] = "hardware"
    command: str
    provider: str
    machine: Machine
    noise: Noise
    cores: Cores
    bandwidth: list[Bandwidth]
    products: list[Product]
    models: list[ModelCard]
    mix: list[int]
    price_per_hour: float | None
    skipped: dict[str, str]

    def roof(self, kind: ProductPrecision) -> Roof | None:
        """The best rate of products of a kind, and the best of reading; None if not measured."""
        rates = [each.rate for each in self.products if each.kind == kind]
        reads = [each.rate for each in self.bandwidth if each.way == "read"]
        return Roof(max(rates), max(reads)) if rates and reads else None

    def cost_per_million(self, way: Way) -> float | None:
        """Of a million texts of the mix, in the price's currency; None without a price."""
        if self.price_per_hour is None:
            return None
        return self.price_per_hour / (way.rate * 3600) * 1e6
