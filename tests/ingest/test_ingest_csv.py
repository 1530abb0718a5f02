"""CSV and TSV: dialects, headers, broken rows, text columns."""

import csv
import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bulletproof.ingest.csv_dialect import DELIMITERS, find_dialect

CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\n\r\t",;|'), max_size=20)


@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8),
    st.sampled_from(DELIMITERS),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_what_the_csv_module_writes_is_read_back(read, rows, delimiter, quoting, ending, sizes):
    out = io.StringIO(newline="")
    # Before Python 3.13 the csv module leaves CR and LF unquoted where they are not the line end.
    ending = "\r\n" if quoting == csv.QUOTE_MINIMAL else ending
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=ending)
    writer.writerow(["id", "text", "n"])
    writer.writerows([first, text, "1"] for first, text in rows)
    # Nobody can tell such a file from one with blanks after its delimiters.
    assume(f'{delimiter} "' not in out.getvalue())
    reading = read(out.getvalue(), sizes=sizes)
    assert reading.texts == [text for _, text in rows]
    assert reading.file.text_field == "text"
    assert reading.file.warnings == []


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_delimiters_line_ends_and_byte_order_marks(read, delimiter, ending, encoding):
    rows = [["id", "text"], ["1", f'"gut{delimiter} wirklich"'], ["2", '"zwei\nZeilen"'], ["3", '"sagt ""ja"""']]
    data = ending.join(delimiter.join(row) for row in rows).encode(encoding)
    reading = read(data)
    assert reading.texts == [f"gut{delimiter} wirklich", "zwei\nZeilen", 'sagt "ja"']
    assert reading.file.encoding.startswith(encoding.removesuffix("-sig"))


def test_blank_lines_are_no_rows(read):
    reading = read("\n\nid,text\n\n1,a\n\n\n2,b\n\n")
    assert reading.records == [(1, "a"), (2, "b")]
    assert reading.file.received == 2


def test_ragged_rows_are_rejected_with_what_was_expected(read):
    reading = read("id,text,stars\n1,good,5\n2,bad\n3,so, so,3\n4,ok,4\n")
    assert reading.texts == ["good", "ok"]
    assert reading.rejections == [
        (2, "invalid_csv", "line 3: expected 3 fields, got 2"),
        (3, "invalid_csv", "line 4: expected 3 fields, got 4; a text with the delimiter in it must stand in quotes"),
    ]


def test_a_quote_that_is_never_closed_is_refused_with_the_line_where_it_begins(refusal):
    error = refusal('id,text\n1,"fine\nreally"\n2,ok\n3,"this never ends\n4,more\n5,and more\n')
    assert (error.code, error.spec.http_status) == ("invalid_csv", 422)
    assert error.where == {"row": 3, "line": 5}
    error = refusal('id,text\n1,"two\nlines","never\nends\n')
    assert error.where["line"] == 3


def test_an_unclosed_quote_costs_its_row_alone_when_another_quote_follows(read):
    reading = read('id,text\n1,ok\n2,"unclosed\n3,"fine, really"\n4,"good"\n5,last\n')
    assert reading.records == [(1, "ok"), (3, "fine, really"), (4, "good"), (5, "last")]
    assert [(rejection.row, rejection.code) for rejection in reading.rejections] == [(2, "invalid_csv")]
    assert "line 3" in reading.rejections[0].details


def test_quotes_that_are_not_doubled_cost_their_row_alone(read):
    reading = read('id,text\n1,"He said "wow" to me"\n2,ok\n3,5" pipe\n4,fine\n')
    assert reading.records == [(2, "ok"), (3, '5" pipe'), (4, "fine")]
    assert reading.rejections[0][:2] == (1, "invalid_csv")


def test_a_nul_byte_is_refused_with_its_place(refusal):
    error = refusal("id,text\n" + "1,good\n" * 50 + "2,b\0d\n")
    assert error.code == "invalid_csv"
    assert (error.where["line"], error.where["column"]) == (52, 4)
    assert "NUL" in str(error)


@pytest.mark.parametrize("quote", ['"', ""])
def test_a_field_over_the_limit_costs_its_row_alone(read, quote):
    reading = read(f"id,text\n1,{quote}{'x' * 200_000}{quote}\n2,{'é' * 65_537}\n3,{'x' * 131_072}\n4,ok\n5,ok\n")
    assert [record.row for record in reading.records] == [3, 4, 5]
    assert [(rejection.row, rejection.code) for rejection in reading.rejections] == [
        (1, "text_too_long"),
        (2, "text_too_long"),
    ]


def test_a_field_of_many_lines_over_the_limit_costs_its_row_alone(read):
    inside = 'a line with a "" quote\n' * 20_000
    reading = read(f'id,text,n\n1,"{inside}","one\nmore"\n2,ok,1\n')
    assert reading.records == [(2, "ok")]
    assert reading.rejections[0][:2] == (1, "text_too_long")


def test_a_long_field_that_never_ends_is_refused(refusal):
    error = refusal('id,text\n1,ok\n2,"' + "line\n" * 100_000)
    assert (error.code, error.where["line"]) == ("invalid_csv", 3)


@pytest.mark.parametrize("ending", ["", "\n1,2\n"])
def test_an_endless_line_is_refused(refusal, ending):
    error = refusal("id,text\n1,ok\n2," + "x" * 5_000_000 + ending)
    assert (error.code, error.where["line"]) == ("invalid_csv", 3)


def test_a_thousand_columns_are_the_most(read, refusal):
    names = ["text", *(f"c{number}" for number in range(999))]
    row = ",".join(["good", *["1"] * 999])
    assert read(",".join(names) + "\n" + row).texts == ["good"]
    error = refusal(",".join([*names, "more"]) + "\n" + row + ",1")
    assert (error.code, error.spec.http_status) == ("invalid_csv", 422)
    assert "1,001 columns" in str(error)


def test_millions_of_columns_are_refused_without_making_them(refusal):
    assert refusal("," * 3_000_000).code == "invalid_csv"
    assert refusal("id,text\n1,ok\n" + "," * 3_000_000).code == "invalid_csv"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("id,text,title", "text"),
        ("ID,Review,Date", "Review"),
        ("id,TEXT", "TEXT"),
        ("id,review_text,review_id", "review_text"),
        ("id,Review Body,Summary", "Review Body"),
        ("id,reviewText,rating", "reviewText"),
        ("id,comment,title", "comment"),
        ("comment_id,customer_comment", "customer_comment"),
        ("user,user_comment", "user_comment"),
        ("id,Kommentar,Datum", "Kommentar"),
        ("id,Commentaire", "Commentaire"),
        ("id,opinión", "opinión"),
        ("id,評論", "評論"),
        ("id,отзыв", "отзыв"),
        ("id,Feedback (Q3)", "Feedback (Q3)"),
    ],
)
def test_the_text_column_is_found_by_its_name(read, header, found):
    width = header.count(",") + 1
    names = header.split(",")
    row = ["7"] * width
    row[names.index(found)] = "what a nice thing"
    reading = read(f"{header}\n{','.join(row)}\n{','.join(row)}\n")
    assert reading.file.text_field == found
    assert reading.texts == ["what a nice thing"] * 2
    assert reading.file.warnings == []


def test_else_the_column_with_the_longest_texts_is_taken_and_said(read):
    data = "sku,site,what\nA-17,https://example.org/a/very/long/address/indeed,It broke after a day\n" * 1
    reading = read(data + "A-18,https://example.org/another/very/long/address,Works as it should\n")
    assert reading.file.text_field == "what"
    assert "'what'" in reading.file.warnings[0]


def test_a_named_column_without_any_text_gives_way_to_one_with_text(read):
    assert read("id,review,body\n1,5,So good\n2,4,Fine too\n").file.text_field == "body"


def test_the_column_asked_for_is_taken(read, refusal):
    data = "id,text,note\n1,a,b\n"
    assert read(data, text_field="note").texts == ["b"]
    assert read(data, text_field=" NOTE ").texts == ["b"]
    error = refusal(data, text_field="review")
    assert error.code == "missing_field"
    assert "'id', 'text', 'note'" in str(error)


def test_names_dates_and_labels_are_not_taken_for_texts(refusal):
    for data in ("name,age\nBob Smith,5\nAnn Lee,6\n", "id,label\n1,very positive\n2,negative\n"):
        assert refusal(data).code == "missing_field"


def test_a_table_of_numbers_is_refused_with_its_columns(refusal):
    error = refusal("a,b\n1,2\n3,4\n")
    assert error.code == "missing_field"
    assert "'a', 'b'" in str(error)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ("I love it\nI hate it\nSo so\n", ["I love it", "I hate it", "So so"]),
        ("I love it, really\nBad, bad, bad\nOk\n", ["I love it, really", "Bad, bad, bad", "Ok"]),
        ('"I love it"\n"no, never"\n', ["I love it", "no, never"]),
        ("1,I love it\n2,I hate it\n", ["I love it", "I hate it"]),
        ("So good,positive\nSo bad,negative\nFine too,positive\n", ["So good", "So bad", "Fine too"]),
    ],
)
def test_a_file_without_header_loses_no_row(read, data, texts):
    reading = read(data)
    assert reading.texts == texts
    assert "No header row" in reading.file.warnings[0]
    assert reading.file.text_field.startswith("column_")


def test_columns_without_header_can_be_asked_for(read):
    assert read("1,I love it,x\n2,I hate it,y\n", text_field="column_3").texts == ["x", "y"]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ("text\nI love it\nBad\n", ["I love it", "Bad"]),
        ("customer_says\nI love it\nBad\n", ["I love it", "Bad"]),
        ("text\nGood, really\nBad, bad, bad\nOk, fine\n", ["Good, really", "Bad, bad, bad", "Ok, fine"]),
    ],
)
def test_a_single_column_with_header(read, data, texts):
    assert read(data).texts == texts


def test_a_header_alone_is_an_empty_file(refusal):
    for data in ("text\n", "id,text", "id,text\n\n\n", "sep=;\nid;text\n"):
        assert refusal(data).code == "empty_file"


def test_the_first_line_of_excel_tells_the_delimiter(read):
    assert read("sep=|\nid|text\n1|a, b; c\n").texts == ["a, b; c"]


def test_backslashes_before_quotes_are_understood_when_the_file_is_written_so(read):
    assert read('id,text\n1,"He said \\"hi\\" and left"\n2,"ok"\n').texts == ['He said "hi" and left', "ok"]
    assert read('id,text\n1,"C:\\temp\\"\n2,"C:\\"\n').texts == ["C:\\temp\\", "C:\\"]


def test_a_backslash_at_the_end_of_a_text_escapes_nothing_where_quotes_are_doubled(read):
    assert read('"id","text"\n"0","a ""b\\""\r\n0"\n"1","c"""\n').texts == ['a "b\\"\r\n0', 'c"']


def test_blanks_after_delimiters_are_understood(read):
    assert read('id, text, n\n1, "good, really", 5\n2, "bad, bad", 1\n').texts == ["good, really", "bad, bad"]


def test_columns_of_the_same_name_are_reported(read):
    reading = read("id,text,text\n1,a,b\n")
    assert reading.texts == ["a"]
    assert "two columns named 'text'" in reading.file.warnings[0]


def test_a_tsv_file_is_split_at_tabs_alone(read):
    assert read("id\ttext\n1\tone, two; three\n2\ta, b; c\n", "a.tsv").texts == ["one, two; three", "a, b; c"]


def test_a_row_across_two_reads_is_whole(read):
    text = "word " * 20_000
    rows = "".join(f'{number},"{text}\nend"\n' for number in range(40))
    reading = read("id,text\n" + rows)
    assert reading.texts == [text + "\nend"] * 40


def test_many_broken_rows_take_no_more_time_than_good_ones(read):
    # Each row opens a quote that the next one closes wrongly.
    reading = read("id,text\n1,ok\n" + '2,"a\n' * 90_000 + '3,"end"\n', max_rejected_share=1)
    assert reading.records == [(1, "ok"), (90_002, "end")]


def test_the_dialect_is_told_from_the_whole_sample():
    assert find_dialect(["a;b,c\n", "1;2,3\n", "4;5\n"], DELIMITERS).delimiter == ";"
    assert find_dialect([], DELIMITERS).columns == 1


def test_a_row_over_the_limit_is_refused_with_the_line_where_it_begins(refusal):
    error = refusal('id,text\n1,ok\n2,"' + "line\n" * 1_000_000 + '"\n3,ok\n')
    assert (error.code, error.where["line"]) == ("invalid_csv", 3)
    assert "4,194,304 bytes" in str(error)
