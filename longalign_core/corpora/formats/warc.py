"""CommonCrawl: WARC files of HTTP responses, their main text taken out, and WET files of text."""

from __future__ import annotations

from collections.abc import Iterator

from longalign_core.config.corpus_formats import WarcCorpus
from longalign_core.corpora.cleaning import MAX_TEXT_BYTES, reject
from longalign_core.corpora.dumps.warc_records import MAX_RECORD_BYTES, ArchiveRecord, archive_records, seekable_archive
from longalign_core.corpora.markup.web_pages import decode_page, extract_page
from longalign_core.corpora.reading import Cursor, RawDocument, Unit
from longalign_core.corpora.unpacking import without_compression
from longalign_core.records import Reject

SUFFIXES = (".warc", ".wet")
HTML_TYPES = ("text/html", "application/xhtml+xml")
_RESPONSES, _TEXTS, _ELSEWHERE = ("response", "resource"), "conversion", "revisit"


def read(unit: Unit, config: WarcCorpus, cursor: Cursor) -> Iterator[RawDocument | Reject]:
    """Read every HTML response of a WARC file, and every text of a WET file; see `reading.Reader`.

    The position is one more than the offset of the last record's first byte: reading goes on there
    with that record skipped. Of a file compressed as a whole they are offsets of the unpacked bytes.
    """
    (file,) = unit.files
    path = file.relative_path
    if not without_compression(path.lower()).endswith(SUFFIXES):
        yield reject(config, path, "other file type", f"expected {', '.join(SUFFIXES)}, plain or .gz")
        return
    with file.open() as stored:
        for record in archive_records(seekable_archive(stored), max(cursor.position - 1, 0)):
            if record.start < cursor.position:
                continue
            found = _read_record(record, f"{path}@{record.start}", config)
            if found is not None:
                cursor.position = record.start + 1
                yield found


def _read_record(record: ArchiveRecord, origin: str, config: WarcCorpus) -> RawDocument | Reject | None:
    """None for what stands beside the documents: requests, and notes of the crawler."""
    if not record.kind:
        if record.is_last:
            return reject(config, origin, "truncated file", f"no record can be read from {origin} on")
        return reject(config, origin, "damaged record", f"{origin} cannot be read")
    if record.kind not in (*_RESPONSES, _TEXTS, _ELSEWHERE):
        return None
    name = record.url or origin
    if record.kind == _ELSEWHERE:
        return reject(config, name, "seen before by the crawler", f"{origin} refers to an earlier record")
    if record.block is None:
        return reject(config, name, "too large", f"{origin} has more than {MAX_RECORD_BYTES} bytes")
    title = None
    if record.kind == _TEXTS:
        text = record.block.decode("utf-8", errors="replace")
    else:
        html = _html(record, record.block, name, origin, config)
        if isinstance(html, Reject):
            return html
        try:
            page = extract_page(html)
        except Exception as error:  # one strange page in millions must not stop the others
            return reject(config, name, "no main text", f"{origin}: the extraction failed ({type(error).__name__})")
        if page is None or not page.text.strip():
            return reject(config, name, "no main text", f"{origin}: none was found in {len(html)} characters of HTML")
        title, text = page.title, page.text
    if len(text) > MAX_TEXT_BYTES:
        return reject(config, name, "too large", f"{origin}: {len(text)} characters, more than {MAX_TEXT_BYTES}")
    return RawDocument(name, text, origin, url=record.url, title=title, created=record.date)


def _html(record: ArchiveRecord, block: bytes, name: str, origin: str, config: WarcCorpus) -> str | Reject:
    """The page that a record holds, as characters."""
    from fastwarc.warc import WarcRecord

    is_http = (record.media_type or "").startswith("application/http")
    content = WarcRecord()
    content.set_bytes_content(block)
    content.is_http = is_http
    try:
        if is_http:
            content.parse_http(auto_decode="all")
            if content.http_headers.status_code != 200:
                status = content.http_headers.status_line or "no status line"
                return reject(config, name, "HTTP status", f"{origin}: {status[:100]}, not 200")
        media_type = (content.http_content_type if is_http else record.media_type) or record.payload_type or "unknown"
        if media_type.partition(";")[0].strip().lower() not in HTML_TYPES:
            return reject(config, name, "not HTML", f"{origin}: {media_type[:100]}")
        data = content.reader.read(MAX_RECORD_BYTES + 1)
    except OSError as error:  # the block is in memory: it is the response that is broken
        return reject(config, name, "broken response", f"{origin}: {str(error)[:100]}")
    if len(data) > MAX_RECORD_BYTES:
        return reject(config, name, "too large", f"{origin}: more than {MAX_RECORD_BYTES} bytes when unpacked")
    return decode_page(data, content.http_charset if is_http else None)
