//! Answers for people: tables and lists of fields that fit into 80 columns.

use serde_json::Value;
use tributary_wire::Micros;

const WIDTH: usize = 80;
/// Fields that hold instants.
const INSTANTS: [&str; 17] = [
    "created",
    "changed",
    "started",
    "finished",
    "time",
    "from",
    "to",
    "from_time",
    "to_time",
    "first_seen",
    "last_seen",
    "received",
    "replayed",
    "published",
    "opened",
    "updated",
    "report_at",
];

/// A value on one line.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace('\n', " "),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.4}"),
            _ => number.to_string(),
        },
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(text).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// A value under its name: instants become readable.
fn named(name: &str, value: &Value) -> String {
    match value.as_i64() {
        Some(micros) if INSTANTS.contains(&name.rsplit('.').next().unwrap_or(name)) => instant(Micros(micros)),
        _ => text(value),
    }
}

/// An instant to the second.
pub fn instant(time: Micros) -> String {
    let seconds = jiff::Timestamp::from_second(time.0.div_euclid(Micros::SECOND));
    seconds.map_or_else(|_| time.to_string(), |seconds| seconds.to_string())
}

fn field<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(item, |value, name| match name.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[name],
    })
}

fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A table of these columns (heading, path of the field). The widest columns give way until it fits.
pub fn table(items: &[Value], columns: &[(&str, &str)]) -> String {
    if items.is_empty() {
        return "nothing\n".to_owned();
    }
    let heading: Vec<String> = columns.iter().map(|(heading, _)| heading.to_uppercase()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|(_, path)| named(path, field(item, path))).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let mut widths: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let gaps = 2 * (columns.len() - 1);
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let Some(widest) = widths.iter_mut().max() else { break };
        *widest -= 1;
    }
    let mut table = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", cut(cell, *width)));
        table += cells.collect::<Vec<_>>().join("  ").trim_end();
        table.push('\n');
    }
    table
}

/// One line per field; objects within are indented. Long values are folded at the end only: nothing is left out.
pub fn lines(item: &Value) -> String {
    let mut out = String::new();
    write_lines(&mut out, item, 0);
    out
}

fn write_lines(out: &mut String, item: &Value, depth: usize) {
    let Some(fields) = item.as_object() else {
        *out += &format!("{:depth$}{}\n", "", text(item));
        return;
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in fields {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                *out += &format!("{:depth$}{name}\n", "");
                write_lines(out, value, depth + 2);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                *out += &format!("{:depth$}{name}\n", "");
                for item in items {
                    let line = item.as_object().map(|fields| {
                        let parts = fields.iter().map(|(name, value)| format!("{name}={}", named(name, value)));
                        parts.collect::<Vec<_>>().join(" ")
                    });
                    *out += &format!("{:depth$}  - {}\n", "", line.unwrap_or_else(|| text(item)));
                }
            }
            value => *out += &format!("{:depth$}{name:<width$}  {}\n", "", named(name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_fits_into_eighty_columns_and_says_when_it_is_empty() {
        let items =
            [json!({"id": 1, "reason": "x".repeat(200), "created": 1_769_860_800_000_000_i64, "at": {"auc": 0.5}})];
        let table = table(&items, &[("id", "id"), ("reason", "reason"), ("created", "created"), ("auc", "at.auc")]);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(table.contains("2026-01-31T12:00:00Z") && table.contains("0.5000") && table.contains('…'));
        assert_eq!(super::table(&[], &[("id", "id")]), "nothing\n");
    }

    #[test]
    fn fields_are_listed_with_those_within() {
        let shown =
            lines(&json!({"name": "edge-1", "report": {"generation": 3}, "lines": [{"line": "a"}], "group": null}));
        assert_eq!(shown, "name    edge-1\nreport\n  generation  3\nlines\n  - line=a\ngroup   -\n");
    }
}
