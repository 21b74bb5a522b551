from mcp_bridge.documents import DEMO_FOLDER, Library


def test_the_demo_has_documents_that_are_found_by_their_subject():
    library = Library(DEMO_FOLDER)
    assert 6 <= len(library.documents) <= 8
    for subject in ("tea", "tides", "bridges", "glass", "paper", "clocks", "salt", "lighthouses"):
        assert library.search(f"Why is {subject} of interest?", 1)[0].url == f"{subject}.md"
    for document in library.documents.values():
        assert 150 <= sum(document.words.values()) <= 320


def test_rare_words_weigh_more_than_common_ones(tmp_path):
    (tmp_path / "a.md").write_text("# A\n\nthe the the the the the ship")
    (tmp_path / "b.md").write_text("# B\n\nthe zebra")
    (tmp_path / "c.md").write_text("# C\n\nthe ship and the ship")
    hits = Library(tmp_path).search("the zebra", 5)
    assert hits[0].url == "b.md" and len(hits) == 3


def test_titles_snippets_plurals_and_limits(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "no-heading.txt").write_text("First words. Here are Zebras! Last words.")
    (tmp_path / "z.md").write_text("\n# On zebras\n\nNothing. " + "A zebra " * 100)
    (tmp_path / "image.png").write_bytes(b"zebra")
    (tmp_path / "huge.md").write_text("zebra " * 200_000)
    (tmp_path / "empty.md").write_text("")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9 zebra")
    hits = {hit.url: hit for hit in Library(tmp_path).search("ZEBRA", 10)}
    assert hits.keys() == {"deep/no-heading.txt", "z.md", "latin.md"}
    assert hits["deep/no-heading.txt"].title == "no heading"
    assert hits["deep/no-heading.txt"].snippet == "Here are Zebras!"
    assert hits["z.md"].title == "On zebras" and len(hits["z.md"].snippet) == 240
    assert len(Library(tmp_path).search("zebra", 2)) == 2
    assert Library(tmp_path).search("unicorn", 5) == [] == Library(tmp_path).search("", 5)
