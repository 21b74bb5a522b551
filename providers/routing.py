"""From a name that a client wrote to the upstream models that may answer it, in order. Asks no model, books nothing.

Order of meaning (docs: model names): a configured name; `provider/model`; `provider` alone; a bare model that exactly one
provider lists or that the price tables assign to one; `local` without configuration is Ollama's first model.
"""

import asyncio
import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.errors import NotFound, RetryableError
from providers.errors import ProviderError
from providers.pricing import library_id, provider_of_model
from providers.provider import Provider

LIST_TTL_S = 30.0
LIST_TIMEOUT_S = 2.0
_NEAREST = 3
_LONGEST_NAME = 200  # what a column takes


@dataclass(frozen=True, slots=True)
class Candidate:
    """One upstream model that may answer."""

    provider: Provider
    model: str

    @property
    def key(self) -> tuple[str, str]:
        """Provider name and model: what cool-downs and rows are keyed by."""
        return self.provider.config.name, self.model


@dataclass(frozen=True, slots=True)
class Group:
    """The targets of a configured name, and how one is chosen among them (`providers.strategies`)."""

    strategy: str
    members: "tuple[Candidate | Group, ...]"
    weights: tuple[float, ...] = ()  # of strategy weighted, one for each member


@dataclass(frozen=True, slots=True)
class Alias:
    """A name under `models:`: its targets in order (names that may themselves be configured)."""

    targets: tuple[str, ...]
    strategy: str = "ordered"
    weights: tuple[float, ...] = ()
    cache_s: float | None = None  # how long its answers may be used again
    hold_back_s: float = 0.0  # how long the beginning of a stream is kept, so that another candidate may begin anew


@dataclass(frozen=True, slots=True)
class Route:
    """What a name means now. `candidates` is never empty; in their written order where `group` says nothing else."""

    requested: str
    candidates: tuple[Candidate, ...]
    group: Group | None = None
    cache_s: float | None = None
    hold_back_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelName:
    """A row of `/v1/models`. `targets`: of a configured name, the `provider/model` names that it comes to, as far as they are written."""

    id: str
    owned_by: str
    targets: tuple[str, ...] = ()


class ModelLists:
    """What each provider says it offers: asked when needed, kept for half a minute, within two seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, list[str]]] = {}

    async def of(self, provider: Provider) -> list[str]:
        """The models of `provider`, its configured ones first. Raises: ProviderError, TimeoutError."""
        name = provider.config.name
        known = self._known.get(name)
        if known is None or known[0] <= self._clock():
            async with asyncio.timeout(LIST_TIMEOUT_S):
                listed = await provider.list_models()
            known = (self._clock() + LIST_TTL_S, listed)
            self._known[name] = known
        configured = provider.config.models
        return [*configured, *(model for model in known[1] if model not in configured)]


class Router:
    """Resolves names against the configured providers and aliases."""

    def __init__(
        self, providers: Mapping[str, Provider], aliases: Mapping[str, Alias], *, lists: ModelLists | None = None
    ) -> None:
        self._providers = providers
        self._aliases = aliases
        self._lists = lists or ModelLists()

    @property
    def providers(self) -> Sequence[Provider]:
        """All that are configured, in their order."""
        return tuple(self._providers.values())

    async def resolve(self, name: str) -> Route:
        """The route for `name`. Raises: NotFound (nearest names), RetryableError(provider_unavailable)."""
        if "\0" in name:  # no provider has one, and it could not be booked
            raise NotFound("model_not_found", "a model's name cannot hold a NUL character (\\u0000)", param="model")
        if len(name) > _LONGEST_NAME:  # it goes into a header and into each row
            words = f"a model's name has at most {_LONGEST_NAME} characters; this one has {len(name)}"
            raise NotFound("model_not_found", words, param="model")
        alias = self._aliases.get(name)
        if alias is None:
            return Route(name, (await self._one(name),))
        group = await self._group(name, alias, frozenset())
        return Route(name, tuple(dict.fromkeys(_flat(group))), group, alias.cache_s, alias.hold_back_s)

    def configures(self, name: str) -> bool:
        """Whether the configuration gives the name a meaning, as a name of its own or as a model of a provider."""
        return name in self._aliases or name.partition("/")[0] in self._providers

    async def list_names(self) -> list[ModelName]:
        """Configured names, then `provider/model` of every provider that can be reached now."""
        rows = [ModelName(name, "aigateway", self._written(name, frozenset())) for name in self._aliases]
        providers = list(self._providers.values())
        for provider, models in zip(providers, await self._all_lists(providers), strict=True):
            owner = provider.config.name
            listed = models if models is not None else provider.config.models
            rows += [ModelName(f"{owner}/{model}", owner) for model in listed]
        if "local" not in self._aliases and (found := await self._local(tolerant=True)):
            rows.insert(0, ModelName("local", "aigateway", ("/".join(found.key),)))
        return rows

    def _written(self, name: str, above: frozenset[str]) -> tuple[str, ...]:
        """The targets behind a configured name, those of configured names among them too."""
        alias = self._aliases.get(name)
        if alias is None or name in above:
            return (name,)
        return tuple(target for inner in alias.targets for target in self._written(inner, above | {name}))

    async def _group(self, name: str, alias: Alias, above: frozenset[str]) -> Group:
        """The targets that can be asked now. Raises: NotFound for names that lead back to themselves (the configuration refuses them)."""
        if name in above:
            raise NotFound("model_not_found", f"The configured model `{name}` leads back to itself.", param="model")
        members: list[Candidate | Group] = []
        weights: list[float] = []
        silent: RetryableError | None = None
        for target, weight in zip(alias.targets, alias.weights or (1.0,) * len(alias.targets), strict=True):
            inner = self._aliases.get(target)
            try:
                if inner is not None:
                    members.append(await self._group(target, inner, above | {name}))
                else:
                    members.append(await self._one(target))
                weights.append(weight)
            except RetryableError as error:  # whose provider cannot be reached now: the others are what failover is for
                silent = silent or error
        if silent is not None and not members:
            raise silent
        return Group(alias.strategy, tuple(members), tuple(weights))

    async def _one(self, name: str) -> Candidate:
        owner, slash, model = name.partition("/")
        if slash and model and owner in self._providers:
            return Candidate(self._providers[owner], model)
        if name in self._providers:
            return await self._default(self._providers[name])
        if name == "local" and name not in self._aliases and (found := await self._local()):
            return found
        return await self._bare(name)

    async def _default(self, provider: Provider) -> Candidate:
        config = provider.config
        if config.default_model:
            return Candidate(provider, config.default_model)
        models = config.models or tuple(await self._list_or_503(provider))
        if len(models) == 1 or (models and config.type in ("ollama", "simulated")):
            return Candidate(provider, models[0])
        raise NotFound(
            "model_not_found",
            f"The provider `{config.name}` has no `default_model`; write `{config.name}/MODEL`.",
            param="model",
        )

    async def _local(self, *, tolerant: bool = False) -> Candidate | None:
        for provider in self._providers.values():
            if provider.config.type != "ollama":
                continue
            try:
                models = await self._list_or_503(provider)
            except RetryableError:
                if tolerant:
                    return None
                raise
            return Candidate(provider, models[0]) if models else None
        return None

    async def _bare(self, name: str) -> Candidate:
        """A model name without its provider; a priced owner is enough where lists cannot be had."""
        if name.startswith("workflow/"):
            message = f"`{name}` answers chat calls alone; within a workflow, use a step of type `workflow`."
            raise NotFound("model_not_found", message, param="model")
        providers = list(self._providers.values())
        configured = [provider for provider in providers if name in provider.config.models]
        if len(configured) == 1:
            return Candidate(configured[0], name)
        if owner := await asyncio.to_thread(self._priced_owner, name):  # the first look-up loads the tables
            return Candidate(owner, name)
        lists = await self._all_lists(providers)
        owners = [provider for provider, models in zip(providers, lists, strict=True) if models and name in models]
        if len(owners) == 1:
            return Candidate(owners[0], name)
        if len(owners) > 1:
            choices = ", ".join(f"`{owner.config.name}/{name}`" for owner in owners)
            raise NotFound(
                "model_not_found", f"Several providers have `{name}`; write one of {choices}.", param="model"
            )
        raise self._not_found(name, lists)

    def _priced_owner(self, name: str) -> Provider | None:
        """The one configured provider that the price tables assign `name` to."""
        owner = provider_of_model(name)
        if owner is None:
            return None
        providers = list(self._providers.values())
        own = [provider for provider in providers if _is_at(provider, owner)]
        # Many speak OpenAI's protocol: the protocol alone tells only where nobody is there by name or address.
        own = own or [provider for provider in providers if provider.config.type == owner]
        return own[0] if len(own) == 1 else None

    async def _list_or_503(self, provider: Provider) -> list[str]:
        try:
            return await self._lists.of(provider)
        except (ProviderError, TimeoutError) as error:
            raise _unavailable(provider.config.name, [provider.config.name]) from error

    async def _all_lists(self, providers: Sequence[Provider]) -> list[list[str] | None]:
        """Each provider's models, None where they cannot be had now."""

        async def one(provider: Provider) -> list[str] | None:
            try:
                return await self._lists.of(provider)
            except (ProviderError, TimeoutError):
                return None

        return list(await asyncio.gather(*map(one, providers)))

    def _not_found(self, name: str, lists: Sequence[Sequence[str] | None]) -> NotFound:
        names = [*self._aliases, *self._providers]
        for owner, models in zip(self._providers, lists, strict=True):
            names += [f"{owner}/{model}" for model in models or ()]
        bare = {full.partition("/")[2] or full: full for full in names}
        near = difflib.get_close_matches(name, [*names, *bare], n=_NEAREST, cutoff=0.4) or names[:_NEAREST]
        shown = ", ".join(f"`{full}`" for full in dict.fromkeys(bare.get(word, word) for word in near))
        silent = [owner for owner, models in zip(self._providers, lists, strict=True) if models is None]
        unasked = f" ({', '.join(silent)} could not be asked)" if silent else ""
        message = f"No model is called `{name}`{unasked}. Nearest: {shown}."
        return NotFound("model_not_found", message, param="model")


def _flat(group: Group) -> Iterator[Candidate]:
    for member in group.members:
        if isinstance(member, Group):
            yield from _flat(member)
        else:
            yield member


def _is_at(provider: Provider, owner: str) -> bool:
    config = provider.config
    return config.name == owner or (config.type in ("openai", "anthropic") and library_id(config) == owner)


def _unavailable(name: str, silent: Sequence[str]) -> RetryableError:
    who = ", ".join(f"`{provider}`" for provider in silent)
    return RetryableError("provider_unavailable", f"`{name}` may be a model of {who}, which cannot be reached now.")
