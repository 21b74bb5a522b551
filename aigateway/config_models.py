"""What has to be right among the configured models together: targets that exist, weights where they mean something, no circles."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from aigateway.config_environment import STANDARD_PROVIDERS
from aigateway.config_file import ConfigTree


class Target(Protocol):
    """One entry of `targets`."""

    @property
    def model(self) -> str:
        """What is asked: `provider/model`, a model, or another configured name."""
        ...

    @property
    def weight(self) -> float | None:
        """Its share, where one was written."""
        ...


class Model(Protocol):
    """One entry of `models`."""

    @property
    def strategy(self) -> str:
        """How a target is chosen."""
        ...

    @property
    def targets(self) -> Sequence[Target]:
        """Among which."""
        ...


def check_models(tree: ConfigTree, models: Mapping[str, Model], providers: Collection[str]) -> None:
    """Adds the mistakes to the tree, each at the target that it is about."""
    for name, model in models.items():
        for index, target in enumerate(model.targets):
            _check_target(tree, (name, index), model, target, providers)
    told: set[str] = set()
    for name in models:
        circle = _circle(models, name)
        if circle is not None and told.isdisjoint(circle):
            told.update(circle)
            index = [target.model for target in models[name].targets].index(circle[1])
            message = f"leads back to itself: {' → '.join(circle)}"
            tree.mistake(("models", name, "targets", index), message)


def _check_target(
    tree: ConfigTree, place: tuple[str, int], model: Model, target: Target, providers: Collection[str]
) -> None:
    """A target's provider has to be configured: a typing error would else show at the first call only."""
    path = ("models", place[0], "targets", place[1])
    if target.weight is not None and model.strategy != "weighted":
        tree.mistake((*path, "weight"), f"belongs to strategy weighted, and this model's is {model.strategy}")
    provider, slash, _ = target.model.partition("/")
    if slash and provider not in providers:
        standard = STANDARD_PROVIDERS.get(provider)
        hint = f"; set {standard.variable} or add it" if standard else ""
        tree.mistake(path, f'provider "{provider}" is not configured{hint}')


def _circle(models: Mapping[str, Model], start: str) -> list[str] | None:
    """The names from `start` back to itself, where there is such a way."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        for target in models[way[-1]].targets:
            if target.model == start:
                return [*way, start]
            if target.model in models and target.model not in seen:
                seen.add(target.model)
                ways.append([*way, target.model])
    return None
