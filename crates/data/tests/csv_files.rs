//! CSV files as they occur in practice: pipes, folders of parts, compressed files, keys as floats, rows that
//! another column distinguishes; and files of unusual sizes.

mod in_parts;

use in_parts::read_panel;
use infermark_data::{Columns, ReadError, read_truth};
use infermark_model::{Labels, Panel};
use std::path::Path;

const HEADER: &str = "product,category,week,price,units";

fn read(name: &str, bytes: &[u8]) -> Result<Panel, ReadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read_panel(&path, &Columns::default())
}

/// The only defect's line of a file, without its path.
fn defect(text: &str) -> String {
    let error = read("panel.csv", text.as_bytes()).expect_err(text);
    let defects = error.defects();
    assert_eq!(defects.len(), 1, "{error}");
    defects[0].to_string()
}

#[test]
fn a_line_without_an_end_is_refused_by_its_line() {
    let text = format!("{HEADER}\np,a,1,2,3\n{},a,1,2,3\n", "x".repeat(2 << 20));
    assert_eq!(
        defect(&text),
        "line 3: the line is longer than 1 MiB; check that the file is CSV with one line per row, and export it again"
    );
    // So is a header.
    assert!(defect(&"x".repeat(2 << 20)).starts_with("line 1: the line is longer than 1 MiB"));
    let text = format!(
        "{HEADER}\np,a,1,2,3\n\"p,a,2,2,3\n{}",
        "p,a,3,2,3\n".repeat(200_000)
    );
    assert!(
        defect(&text).starts_with("line 3: broken quoting: the quote opened here is not closed within 1 MiB"),
        "{}",
        defect(&text)
    );
}

#[test]
fn nul_bytes_are_damage() {
    let text = format!("{HEADER}\np,a,1,2,3\np\0,a,2,2,3\n");
    assert_eq!(
        defect(&text),
        "line 3: a NUL byte, which no text has: the file is damaged; export or copy the file again"
    );
}

#[test]
fn messages_stay_short() {
    let wide: Vec<String> = (0..100_000).map(|i| format!("c{i}")).collect();
    let message = defect(&format!("{}\n", wide.join(",")));
    assert!(
        message.contains("\"c19\" and 99980 more") && message.len() < 2000,
        "{message}"
    );
    let long = "\u{1}".repeat(500_000);
    let text = format!("{HEADER}\n{long},{long}a,1,2,3\n{long},{long}b,2,2,3\n{long},{long}a,1,x,3\n");
    let message = read("panel.csv", text.as_bytes()).unwrap_err().to_string();
    assert!(message.len() < 3000, "{}", message.len());
}

#[test]
fn whole_numbers_as_floats_are_whole_numbers() {
    let text =
        format!("{HEADER}\n1001.0,7.0,202402.0,2,3.0\n1001.0,7.0,202401.0,2,1.0\n998.0,7.0,202401.0,2,1\n");
    let panel = read("panel.csv", text.as_bytes()).unwrap();
    assert_eq!(*panel.products(), Labels::Integer(vec![998, 1001]));
    assert_eq!(*panel.categories(), Labels::Integer(vec![7]));
    assert_eq!(*panel.periods(), Labels::Integer(vec![202_401, 202_402]));
    // A truth file may write the same number in either way.
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.csv");
    std::fs::write(&truth, "product,category,elasticity\n1001.0,7.0,-2\n998,7,-1\n").unwrap();
    assert_eq!(
        read_truth(&truth, &panel).unwrap().product_elasticity,
        [-1.0, -2.0]
    );
}

#[test]
fn one_number_in_two_spellings_is_a_defect() {
    let remedy = "write it in one way if both are one key, or rename one of the two";
    assert_eq!(
        defect(&format!("{HEADER}\n1,a,1,2,3\n1.0,a,2,2,3\n")),
        format!(r#"column "product", value "1.0": the same whole number is also written "1"; {remedy}"#)
    );
    assert_eq!(
        defect(&format!("{HEADER}\np,1.00,1,2,3\nq,1.0,2,2,3\nr,x,2,2,3\n")),
        format!(r#"column "category", value "1.0": the same whole number is also written "1.00"; {remedy}"#)
    );
}

#[test]
fn rows_that_another_column_tells_apart_are_not_to_be_added_up() {
    let repeated = r#"column "week", value "7": product "P1" has this period already, on line 2"#;
    assert_eq!(
        defect(&format!("{HEADER},year\nP1,a,7,2,3,2023\nP1,a,7,3,4,2024\n")),
        format!(
            r#"line 3, {repeated}; column "year" tells the rows apart ("2023" and "2024"): make it a part of the period, such as 202407 here"#
        )
    );
    assert_eq!(
        defect(&format!(
            "{HEADER},revenue,store\nP1,a,7,2,3,6.5,0\nP1,a,7,3,4,12.5,1\n"
        )),
        format!(
            r#"line 3, {repeated}; column "store" tells the rows apart ("0" and "1"): make it a part of the product, such as "P1 1" here, or keep the rows of one "store" only"#
        )
    );
    assert_eq!(
        defect(&format!("{HEADER},revenue\nP1,a,7,2,3,6.5\nP1,a,7,3,4,12.5\n")),
        format!("line 3, {repeated}; keep one of the two rows, or add them up")
    );
    assert_eq!(
        defect(&format!("{HEADER}\nP1,a,7,2,3\nP1,a,7,2,3\n")),
        format!("line 3, {repeated}; the rows are the same: remove one of them")
    );
}

#[test]
fn a_suggested_column_is_free_and_holds_what_is_wanted() {
    // `prices` holds text, `price2` numbers.
    let message = defect("product,category,week,prices,price2,units\np,a,1,high,2,3\n");
    assert!(
        message.ends_with(r#"did you mean Columns::price = "price2"?"#),
        "{message}"
    );
    // `unit` is the price already.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.csv");
    std::fs::write(&path, "product,category,week,unit\np,a,1,2\n").unwrap();
    let columns = Columns {
        price: "unit".into(),
        ..Columns::default()
    };
    let message = read_panel(&path, &columns).unwrap_err().to_string();
    assert!(
        message.ends_with("name the column that holds it with Columns::units"),
        "{message}"
    );
    let message = defect("Product,Category,Week,cost,Units\np,a,1,2,3\n");
    assert!(
        message.ends_with(
            r#"did you mean Columns::product = "Product", Columns::category = "Category", Columns::period = "Week", Columns::units = "Units"? name the rest with Columns::price"#
        ),
        "{message}"
    );
}

#[test]
fn compressed_files_are_told_with_their_command() {
    for (name, head, told) in [
        (
            "s.csv.gz",
            &b"\x1f\x8b\x08\0"[..],
            "gzip; unpack it first: gunzip -c ",
        ),
        (
            "s.csv.zst",
            b"\x28\xb5\x2f\xfd",
            "Zstandard; unpack it first: zstd -dc ",
        ),
        ("s.csv.bz2", b"BZh91AY&", "bzip2; unpack it first: bunzip2 -c "),
        ("s.csv.xz", b"\xfd7zXZ\0", "xz; unpack it first: xz -dc "),
        ("s.zip", b"PK\x03\x04", "zip; unpack it first: unzip -p "),
    ] {
        let message = read(name, head).unwrap_err().to_string();
        assert!(message.contains(told) && message.ends_with("/s.csv"), "{message}");
    }
    let message = read("sales.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
        .unwrap_err()
        .to_string();
    assert!(message.contains("a spreadsheet"), "{message}");
}

#[test]
fn a_folder_of_parts_is_told_with_how_to_join_them() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("my sales");
    std::fs::create_dir(&parts).unwrap();
    let message = |path: &Path| read_panel(path, &Columns::default()).unwrap_err().to_string();
    assert!(message(&parts).ends_with("no .csv or .parquet file is in it: name the file itself"));
    for week in 1..4 {
        let text = format!("{HEADER}\np,a,{week},2,3\nq,a,{week},2,3\n");
        std::fs::write(parts.join(format!("{week}.csv")), text).unwrap();
    }
    let told = message(&parts);
    assert!(told.contains("it holds 3 .csv files"), "{told}");
    // The command works as printed.
    let command = told.lines().nth(1).unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let joined = read_panel(&folder.path().join("joined.csv"), &Columns::default()).unwrap();
    assert_eq!(joined.rows(), 6);
    let partition = parts.join("category=C1");
    std::fs::create_dir(&partition).unwrap();
    for week in 1..4 {
        std::fs::rename(
            parts.join(format!("{week}.csv")),
            partition.join(format!("{week}.parquet")),
        )
        .unwrap();
    }
    let told = message(&parts);
    assert!(
        told.contains("it holds 3 .parquet files, in folders whose names hold a column")
            && told.contains("my sales/**/*.parquet', hive_partitioning = true)) TO 'joined.parquet'\""),
        "{told}"
    );
}

#[test]
fn parts_are_joined_without_their_headers_too_and_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    // A folder of parts, named as Spark does.
    let parts = folder.path().join("sales.csv");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(parts.join("a.csv"), format!("{HEADER}\np,a,1,2,3\nq,a,1,2,3\n")).unwrap();
    std::fs::write(parts.join("b.CSV"), "p,a,2,2,3\nq,a,2,2,3\n").unwrap();
    std::fs::write(parts.join("c.csv"), format!("{HEADER}\np,a,3,2,3\n")).unwrap();
    for (shown, place) in [
        (folder.path().join("sales.csv"), folder.path()),
        (parts.join("."), &*parts),
    ] {
        let told = read_panel(&shown, &Columns::default()).unwrap_err().to_string();
        let command = told.lines().nth(1).unwrap();
        for _ in 0..2 {
            let status = std::process::Command::new("sh")
                .args(["-c", command])
                .current_dir(place)
                .status();
            assert!(status.unwrap().success(), "{told}");
            let joined = read_panel(&place.join("joined.csv"), &Columns::default()).unwrap();
            assert_eq!(joined.rows(), 5, "{command}");
        }
        std::fs::remove_file(place.join("joined.csv")).unwrap();
    }
}

#[test]
fn an_amount_does_not_tell_rows_apart() {
    for (column, cells, told) in [
        (
            "revenue",
            ["6", "12.5"],
            "keep one of the two rows, or add them up",
        ),
        ("revenue", ["6", "12"], "where it is an amount, keep one"),
        ("store_id", ["6", "12"], "make it a part of the product, such as"),
        (
            "outlet",
            ["north", "south"],
            "make it a part of the product, such as",
        ),
    ] {
        let text = format!(
            "{HEADER},{column}\np,a,1,2,3,{}\np,a,1,2,3,{}\n",
            cells[0], cells[1]
        );
        let error = read("sales.csv", text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(told), "{column} {cells:?}: {error}");
    }
}

#[cfg(unix)]
mod pipes {
    use super::*;

    /// Calls `read` with a named pipe through which `bytes` come.
    fn through<T>(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        std::thread::scope(|scope| {
            // The reader may close before all is written.
            scope.spawn(|| std::fs::write(&path, bytes));
            read(&path)
        })
    }

    fn panel(bytes: &[u8]) -> Result<Panel, String> {
        through("pipe", bytes, |path| {
            read_panel(path, &Columns::default()).map_err(|e| {
                let text = e.to_string();
                text.strip_prefix(&format!("{}: ", path.display()))
                    .unwrap()
                    .to_owned()
            })
        })
    }

    #[test]
    fn a_pipe_is_read_once() {
        let text = format!("{HEADER}\np,a,1,2,3\np,a,2,2,3\n");
        assert_eq!(
            panel(text.as_bytes()),
            read("panel.csv", text.as_bytes()).map_err(|e| e.to_string())
        );
        let truth = through("truth.csv", b"product,category,elasticity\np,a,-2\n", |path| {
            read_truth(path, &panel(text.as_bytes()).unwrap()).unwrap()
        });
        assert_eq!(truth.product_elasticity, [-2.0]);
    }

    #[test]
    fn defects_of_a_pipe_are_told_by_row() {
        let message = |text: &str| panel(text.as_bytes()).unwrap_err();
        assert!(
            message(&format!("{HEADER}\n\np,a,1,2,3\np,a,2,x,3\n"))
                .contains("\n  data row 2, column \"price\"")
        );
        assert!(
            message(&format!("{HEADER}\np,a,1,2,3\np,a,1,3,3\n"))
                .contains("\n  data row 2, column \"week\", value \"1\": product \"p\" has this period already, on data row 1; keep one")
        );
        for (row, fault) in [
            ("p\"q,a,2,2,3", "a quote inside"),
            ("\"p,a,2,2,3", "never closed"),
            ("p\0,a,2,2,3", "NUL"),
        ] {
            let told = message(&format!("{HEADER}\np,a,1,2,3\n{row}\n"));
            assert!(
                told.contains("\n  data row 2: ") && told.contains(fault),
                "{told}"
            );
        }
        let two = message(&format!("{HEADER}\np\"q,a,1,2,3\np,a,2,2,3\np\0,a,3,2,3\n"));
        assert!(
            two.contains("data row 1: broken quoting") && two.contains("data row 3: "),
            "{two}"
        );
        assert!(message("").contains("the file is empty"));
    }

    #[test]
    fn what_a_pipe_cannot_bring_is_told() {
        assert_eq!(
            panel(b"PAR1xxxx").unwrap_err(),
            "Parquet is read from its end, which a pipe has not; save it as a file first and name that"
        );
        assert_eq!(
            panel(b"\x1f\x8b\x08\0\0\0\0\0").unwrap_err(),
            "what comes through the pipe is compressed by gzip; put `gunzip -c` before it"
        );
    }
}
