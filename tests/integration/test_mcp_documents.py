"""The documents server, as its own process behind the bridge, from a folder that has modules of the same names."""

from integration.mcp_bridging import bridge, module, refused, run

from engine.states import ErrorClass


def documents(*args, **settings):
    return module("documents", "mcp_bridge.documents", *args, **settings)


def test_the_shipped_documents_are_found_and_read():
    async def work():
        async with bridge(documents()) as b:
            tools = await b.tools()
            assert {t.name for t in tools} == {"web_search", "read_document"} and all(t.repeatable for t in tools)
            hits = (await b.call("web_search", {"query": "the history of tea", "count": 3})).value
            assert len(hits) == 3 and hits[0]["title"] == "A short history of tea"
            assert hits[0].keys() == {"title", "url", "snippet"} and len(hits[0]["snippet"]) <= 240
            text = (await b.call("read_document", {"path": hits[0]["url"]})).value
            assert text.startswith("# A short history of tea")

    run(work())


OUTSIDE = ["../secret.md", "/etc/passwd", "link.md", "linked/secret.md", "a.md/../../secret.md", "%2e%2e/secret.md", ""]


def test_nothing_outside_the_folder_can_be_read(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "a.md").write_text("# A\n\nAlpha.")
    (tmp_path / "secret.md").write_text("# Secret\n\nhush")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "linked").symlink_to(tmp_path)

    async def work():
        async with bridge(documents("--folder", str(folder))) as b:
            for path in OUTSIDE:
                error = await refused(b.call("read_document", {"path": path}))
                assert error.error_class is ErrorClass.TOOL_ERROR
            assert (await b.call("web_search", {"query": "secret hush"})).value == []
            assert [hit["url"] for hit in (await b.call("web_search", {"query": "alpha"})).value] == ["a.md"]

    run(work())


def test_a_folder_of_the_users_own_with_our_names_shadows_nothing(tmp_path):
    for name in ("api", "mcp_bridge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('shadowed')")

    async def work():
        async with bridge(documents(cwd=str(tmp_path))) as b:
            assert (await b.call("web_search", {"query": "salt", "count": 1})).value[0]["url"] == "salt.md"

    run(work())


def test_a_missing_folder_is_told():
    async def work():
        async with bridge(documents("--folder", "/no/such/folder")) as b:
            error = await refused(b.call("web_search", {"query": "x"}, server="documents"))
            assert "/no/such/folder is no folder" in error.message

    run(work())
