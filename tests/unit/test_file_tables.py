"""Broken, empty and odd files: one line that names the file."""

import pandas as pd
import pytest

from data.file_tables import read_column_names, read_table


def whole_parquet(path):
    pd.DataFrame({"a": range(100)}).to_parquet(path)
    return path.read_bytes()


@pytest.fixture
def csv(tmp_path):
    def write(text, name="mine.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return path

    return write


def test_columns_come_in_the_order_asked_for_and_text_is_not_guessed_at(csv):
    rows = read_table(csv("a,b,c\n001,2,3\n004,5,6\n"), columns=["c", "a"], as_text=["a"])
    assert list(rows.columns) == ["c", "a"]
    assert rows["a"].tolist() == ["001", "004"]
    assert rows["c"].tolist() == [3, 6]


def test_a_byte_order_mark_is_not_part_of_the_first_name(csv):
    path = csv("id,amount\n1,2\n", encoding="utf-8-sig")
    assert read_column_names(path) == ["id", "amount"]
    assert read_table(path, columns=["id"], as_text=[])["id"].tolist() == [1]


def test_parquet_is_read_by_column(tmp_path):
    path = tmp_path / "mine.parquet"
    pd.DataFrame({"a": [1, 2], "b": ["x", None]}).to_parquet(path)
    assert read_column_names(path) == ["a", "b"]
    assert read_table(path, columns=["b"], as_text=["b"])["b"].tolist() == ["x", None]


def test_an_empty_file_is_named(csv):
    with pytest.raises(ValueError, match=r"mine.csv is empty"):
        read_column_names(csv(""))


def test_a_header_without_rows_is_named(csv):
    with pytest.raises(ValueError, match=r"mine.csv has a header but no rows"):
        read_table(csv("a,b\n"), columns=["a"], as_text=[])


def test_two_columns_of_one_name_are_named(csv):
    with pytest.raises(ValueError, match="more than one column named b; rename"):
        read_column_names(csv("a,b,b\n1,2,3\n"))


def test_an_ending_that_is_neither_csv_nor_parquet_is_an_error_that_lists_them(csv):
    with pytest.raises(ValueError, match=r"mine.xlsx must end in one of: .csv"):
        read_column_names(csv("a\n1\n", name="mine.xlsx"))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"PAR1 and then nothing"),
        lambda path: path.write_bytes(whole_parquet(path)[:-40]),
    ],
)
def test_a_truncated_parquet_file_is_one_line(tmp_path, write):
    path = tmp_path / "mine.parquet"
    write(path)
    with pytest.raises(
        ValueError, match=r"mine.parquet is broken or not what its ending says"
    ) as e:
        read_column_names(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("line", ["1,2,3", "1"])
def test_a_line_with_a_field_too_many_or_too_few_is_one_line(csv, line):
    with pytest.raises(ValueError, match=r"mine.csv is broken .* Expected 2 columns, got") as error:
        read_table(csv(f"a,b\n1,2\n{line}\n"), columns=["a"], as_text=[])
    assert "\n" not in str(error.value)


def test_text_that_is_not_utf8_is_one_line(csv):
    with pytest.raises(ValueError, match=r"mine.csv is broken .* invalid UTF8"):
        read_table(csv("a\né\n", encoding="latin-1"), columns=["a"], as_text=["a"])


def test_a_columns_type_is_decided_by_all_of_its_values(csv):
    numbers = ["1"] * 200_000 + ["x"]
    rows = read_table(
        csv("a,b\n" + "".join(f"{n},1\n" for n in numbers)), columns=["a"], as_text=[]
    )
    assert rows["a"].tolist() == numbers


def test_numbers_flags_and_gaps_are_recognised(csv):
    path = csv('a,b,c,d\n 1,true,x,\n,False,"y\nz",\n2.5,NA,1,\n')
    rows = read_table(path, columns=["a", "b", "c", "d"], as_text=[])
    assert rows["a"].isna().tolist() == [False, True, False]
    assert rows["b"].tolist() == [True, False, None]
    assert rows["c"].tolist() == ["x", "y\nz", "1"]
    assert rows["d"].isna().all()


def test_a_compressed_csv_is_read(tmp_path):
    path = tmp_path / "mine.csv.gz"
    pd.DataFrame({"a": [1, 2]}).to_csv(path, index=False)
    assert read_column_names(path) == ["a"]
    assert read_table(path, columns=["a"], as_text=[])["a"].tolist() == [1, 2]
