"""Pages as a browser reads them, and what holds of every one of them."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "polyline", "rect"}


class Page(HTMLParser):
    """Everything in a page that could break it: tags, addresses, ids, and its plain text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.ids, self.text = [], [], [], ""
        self.open = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "srcset", "action", "poster"):
                self.addresses.append(value)
            assert not key.startswith("on"), (tag, key)
            if key == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        if tag not in VOID and tag not in ("p", "li"):
            while self.open and self.open[-1] in ("p", "li"):
                self.open.pop()
            assert self.open.pop() == tag
        elif self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.text += data + " "

    def has(self, words):
        return words in " ".join(self.text.replace("\u00a0", " ").split())


def check_standalone(text):
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert page.addresses
    assert all(a.startswith(("#", "data:")) for a in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert all(a[1:] in page.ids for a in page.addresses if a.startswith("#"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text.encode()) < 5_000_000
    return page
