"""Every method of the embedded client with hostile values in every argument: a result, or one error of this project's.

Python's own `TypeError` for an unknown or a missing argument is no leak; no call here has one. What a call may do is
left open: many of these values are harmless in some places. Afterwards the collection must be whole, opened again.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import closing

import pytest
from qdrant_client import models
from zoo import METHODS, WITHOUT_ARGUMENTS, fill, hostile_calls, leak, state

from qdrant_tools.client.connect import aconnect, connect
from qdrant_tools.edge.client import EmbeddedClient
from qdrant_tools.errors import NotSupportedError, PlusError, UsageError


def test_no_value_in_any_argument_of_any_method_raises_a_foreign_error_or_harms_the_collection(tmp_path):
    client = connect(tmp_path)
    fill(client)
    leaks, calls = {}, 0
    for method, argument, label, arguments in hostile_calls():
        calls += 1
        error = leak(lambda method=method, arguments=arguments: getattr(client, method)(**arguments))
        if error is not None:
            leaks[method, argument, label] = error
    assert not leaks, f"{len(leaks)} of {calls} calls: {dict(list(leaks.items())[:10])}"
    before = state(client)
    client.close()
    with closing(connect(tmp_path)) as again:
        assert state(again) == before


def test_every_other_method_is_one_that_no_embedded_engine_has(client):
    methods = {name for name, _ in inspect.getmembers(EmbeddedClient, inspect.isfunction) if not name.startswith("_")}
    for name in methods - set(METHODS) - WITHOUT_ARGUMENTS:
        method = getattr(client, name)
        parameters = inspect.signature(method).parameters.values()
        required = [parameter for parameter in parameters if parameter.default is parameter.empty]
        arguments = {parameter.name: "x" for parameter in required if parameter.kind is not parameter.VAR_KEYWORD}
        with pytest.raises(NotSupportedError, match="no such operation"):
            method(**arguments)


def test_a_wrong_call_is_pythons_own_error_and_an_unknown_argument_is_named(client):
    fill(client)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        client.count()
    with pytest.raises(UsageError, match="Unknown arguments: .'colour'"):
        client.count("c", colour="red")


def test_what_a_callers_own_iterator_raises_reaches_the_caller_as_it_is(client):
    def broken():
        yield models.PointStruct(id=7, vector={})
        raise KeyError("the caller's")

    fill(client)
    with pytest.raises(KeyError, match="the caller's"):
        client.upload_points("c", broken(), batch_size=1)
    with pytest.raises(KeyError, match="the caller's"):
        client.upload_collection("c", {"d": [[1.0, 2.0]] * 3}, ids=(point.id for point in broken()))
    with pytest.raises(KeyError, match="the caller's"):
        aconnect(client.folder).upload_points("c", broken(), batch_size=1)
    assert client.retrieve("c", [7])


def test_the_async_client_refuses_the_same_values(tmp_path):
    with closing(connect(tmp_path)) as client:
        fill(client)
    chosen = {"query_points", "upsert", "scroll", "set_payload", "upload_points"}

    async def every_call():
        client = aconnect(tmp_path)
        leaks = {}
        for method, argument, label, arguments in hostile_calls():
            if method not in chosen:
                continue
            try:
                result = getattr(client, method)(**arguments)
                if asyncio.iscoroutine(result):
                    await result
            except PlusError:
                pass
            except BaseException as error:
                leaks[method, argument, label] = f"{type(error).__name__}: {str(error)[:200]}"
        await client.close()
        return leaks

    leaks = asyncio.run(every_call())
    assert not leaks, f"{len(leaks)}: {dict(list(leaks.items())[:10])}"
