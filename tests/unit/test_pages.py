"""A picture on a page: its own ids, no script, and whatever its title holds as text."""

import pytest

from configs.pages import embed_picture

SVG = '<?xml version="1.0"?><svg><metadata>who</metadata><g id="a"/><use href="#a"/></svg>\n'


def test_a_picture_keeps_no_prolog_and_no_metadata_and_its_ids_become_its_own():
    page = embed_picture("roc", SVG, title="ROC curve")
    assert page == (
        '<svg role="img" aria-label="ROC curve"><g id="roc-a"/><use href="#roc-a"/></svg>'
    )


def test_a_title_is_text_whatever_it_holds():
    page = embed_picture("roc", SVG, title='"><script>')
    assert 'aria-label="&#34;&gt;&lt;script&gt;"' in page


@pytest.mark.parametrize("bad", ["<script>1</script>", '<g onload="1"/>', "<foreignObject/>"])
def test_a_picture_with_a_script_is_refused(bad):
    with pytest.raises(ValueError, match="script"):
        embed_picture("roc", f"<svg>{bad}</svg>", title="ROC curve")


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="not an SVG"):
        embed_picture("roc", "<p/>", title="ROC curve")
