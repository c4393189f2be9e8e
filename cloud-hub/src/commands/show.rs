//! Answers for people: tables and lists of fields that fit into 80 columns.

use std::ops::Range;

use serde_json::{Map, Value};
use tributary_wire::Micros;

#[cfg(test)]
mod tests;

const WIDTH: usize = 80;
/// Numbers between these (the years 2001 and 2100 in microseconds) are instants: nothing else that the hub counts comes
/// near them, but for what chance decides.
const INSTANTS: Range<i64> = 1_000_000_000_000_000..4_102_444_800_000_000;

/// Text in which nothing steers a terminal: some of it is a device's word.
pub fn plain(text: &str, instead: impl Fn(char) -> char) -> String {
    text.chars().map(|letter| if letter.is_control() { instead(letter) } else { letter }).collect()
}

/// A value on one line.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text, |_| ' '),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.4}"),
            _ => number.to_string(),
        },
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            items.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        Value::Object(fields) => pairs(fields),
        other => other.to_string(),
    }
}

/// A value under its name: instants become readable.
fn named(name: &str, value: &Value) -> String {
    moment(name, value).map_or_else(|| text(value), instant)
}

fn moment(name: &str, value: &Value) -> Option<Micros> {
    value.as_i64().filter(|micros| INSTANTS.contains(micros) && name != "seed").map(Micros)
}

/// Fields on one line.
fn pairs(fields: &Map<String, Value>) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", named(name, value))).collect::<Vec<_>>().join(" ")
}

/// An instant to the second.
pub fn instant(time: Micros) -> String {
    let seconds = jiff::Timestamp::from_second(time.0.div_euclid(Micros::SECOND));
    seconds.map_or_else(|_| time.to_string(), |seconds| seconds.to_string())
}

/// An instant to the minute, or its day when it is midnight.
fn short_instant(time: Micros) -> String {
    let full = instant(time);
    match full.strip_suffix("T00:00:00Z") {
        Some(day) => day.to_owned(),
        None => format!("{}Z", full.get(..16).unwrap_or(&full)),
    }
}

/// An instant to the minute within a year that the heading tells: too short to be cut.
fn within_year(time: Micros) -> String {
    instant(time).get(5..16).unwrap_or_default().replace('T', " ")
}

/// The year of all instants in these columns, if they have one in common.
fn common_year(items: &[Value], columns: &[(&str, &str)]) -> Option<String> {
    let times = items.iter().flat_map(|item| columns.iter().filter_map(|(_, path)| moment(path, field(item, path))));
    let mut years = times.map(|time| instant(time).get(..4).unwrap_or_default().to_owned());
    let first = years.next()?;
    years.all(|year| year == first).then_some(first)
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

/// Before the last column gets narrower than this, the others give way.
const LAST: usize = 16;
/// Narrower than this no column gets, whatever the others need.
const LEAST: usize = 4;

/// A table of these columns (heading, path of the field). Where it does not fit, instants become shorter, then the last
/// column gives way, then the widest. The first never does, since it is what commands ask for, nor do instants, which
/// say nothing when they are cut.
pub fn table(items: &[Value], columns: &[(&str, &str)]) -> String {
    if items.is_empty() {
        return "nothing\n".to_owned();
    }
    let is_time = |path: &str| items.iter().any(|item| moment(path, field(item, path)).is_some());
    let whole: Vec<bool> = columns.iter().enumerate().map(|(n, (_, path))| n == 0 || is_time(path)).collect();
    let (mut rows, mut widths) = cells(items, columns, instant);
    if total(&widths) > WIDTH {
        (rows, widths) = cells(items, columns, short_instant);
    }
    if total(&widths) > WIDTH
        && let Some(year) = common_year(items, columns)
    {
        let dated: Vec<String> = columns
            .iter()
            .map(|(heading, path)| if is_time(path) { format!("{heading} {year}") } else { (*heading).to_owned() })
            .collect();
        let columns: Vec<(&str, &str)> =
            dated.iter().zip(columns).map(|(heading, (_, path))| (heading.as_str(), *path)).collect();
        (rows, widths) = cells(items, &columns, within_year);
    }
    while total(&widths) > WIDTH {
        let Some((last, others)) = widths.split_last_mut() else { break };
        let last_gives = !whole[others.len()] && *last > LEAST;
        let free = others.iter_mut().zip(&whole).filter(|(width, whole)| !**whole && **width > LEAST);
        match free.map(|(width, _)| width).max() {
            Some(widest) if !last_gives || *last <= LAST => *widest -= 1,
            None if !last_gives => break,
            _ => *last -= 1,
        }
    }
    draw(&rows, &widths)
}

type Cells = Vec<Vec<String>>;

/// Headings and rows, and how wide each column is.
fn cells(items: &[Value], columns: &[(&str, &str)], show: impl Fn(Micros) -> String) -> (Cells, Vec<usize>) {
    let cell = |(_, path): &(&str, &str), item| {
        let value = field(item, path);
        moment(path, value).map_or_else(|| text(value), &show)
    };
    let heading: Vec<String> = columns.iter().map(|(heading, _)| heading.to_uppercase()).collect();
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(column, item)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    let widths = (0..columns.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    (rows, widths)
}

/// Width of a table: its columns with two spaces between.
fn total(widths: &[usize]) -> usize {
    widths.iter().map(|width| width + 2).sum::<usize>().saturating_sub(2)
}

fn draw(rows: &Cells, widths: &[usize]) -> String {
    let mut table = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", cut(cell, *width)));
        table += cells.collect::<Vec<_>>().join("  ").trim_end();
        table.push('\n');
    }
    table
}

/// One line per field; objects within are indented, lists of them are tables where they fit. Nothing is left out: what
/// is longer goes on in the next line.
pub fn lines(item: &Value) -> String {
    let mut out = String::new();
    match item {
        Value::Array(items) => write_list(&mut out, items, 0),
        item => write_lines(&mut out, item, 0),
    }
    out
}

fn write_lines(out: &mut String, item: &Value, depth: usize) {
    let Some(fields) = item.as_object() else {
        fold(out, &" ".repeat(depth), &text(item), depth);
        return;
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in fields {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                *out += &format!("{:depth$}{name}\n", "");
                write_lines(out, value, depth + 2);
            }
            Value::Array(items) if items.iter().any(is_long) => {
                *out += &format!("{:depth$}{name}\n", "");
                write_list(out, items, depth + 2);
            }
            value => {
                let value = match value {
                    Value::Object(_) => "-".to_owned(),
                    Value::Array(items) if items.is_empty() => "-".to_owned(),
                    value => named(name, value),
                };
                fold(out, &format!("{:depth$}{name:<width$}  ", ""), &value, depth + width + 2);
            }
        }
    }
}

/// Whether a list of such items needs a line for each.
fn is_long(item: &Value) -> bool {
    item.is_object() || item.as_str().is_some_and(|text| text.contains(' '))
}

fn write_list(out: &mut String, items: &[Value], depth: usize) {
    if items.is_empty() {
        *out += &format!("{:depth$}nothing\n", "");
        return;
    }
    let objects: Option<Vec<&Map<String, Value>>> = items.iter().map(Value::as_object).collect();
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for name in objects.iter().flatten().flat_map(|fields| fields.keys()) {
        if !columns.contains(&(name, name)) {
            columns.push((name, name));
        }
    }
    let (rows, widths) = cells(items, &columns, instant);
    if objects.is_some() && total(&widths) + depth <= WIDTH {
        for line in draw(&rows, &widths).lines() {
            *out += &format!("{:depth$}{line}\n", "");
        }
        return;
    }
    for item in items {
        fold(out, &format!("{:depth$}- ", ""), &text(item), depth + 4);
    }
}

/// Writes words after `head`, and goes on `indent` spaces into the next line when the line is full.
pub fn fold(out: &mut String, head: &str, words: &str, indent: usize) {
    let (mut column, mut first) = (head.chars().count(), true);
    *out += head.trim_end();
    let mut blank = head.len() - head.trim_end().len();
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if first && column + length > WIDTH && length + 4 <= WIDTH {
            *out += "\n";
            (column, blank) = (4, 4);
        } else if !first && column + 1 + length > WIDTH {
            *out += "\n";
            (column, blank) = (indent, indent);
        } else if !first {
            (column, blank) = (column + 1, 1);
        }
        *out += &" ".repeat(blank);
        *out += word;
        (column, first) = (column + length, false);
    }
    *out += "\n";
}
