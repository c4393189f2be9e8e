//! Events that do not fit the view, and what is said about them.

use tributary_features::{EntityKey, Event, EventId, Micros, Value};

use crate::reference::view;

fn event() -> Event {
    Event {
        id: EventId::new("e1").unwrap(),
        time: Micros(5),
        entities: vec![("place".into(), EntityKey::Text("left".into())), ("customer".into(), EntityKey::Int(7))],
        values: vec![("weight".into(), Value::Int(2)), ("amount".into(), Value::Double(1.5))],
    }
}

#[test]
fn an_event_comes_out_in_the_order_of_the_view() {
    let row = view().row(&event()).unwrap();
    assert_eq!(row.entities, [EntityKey::Int(7), EntityKey::Text("left".into())]);
    assert_eq!(row.values, [Some(1.5), Some(2.0), None]);
}

#[test]
fn an_event_that_does_not_fit_is_refused_by_field() {
    let refusal = |change: fn(&mut Event)| {
        let mut event = event();
        change(&mut event);
        view().row(&event).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(|event| event.values.push(("colour".into(), Value::Int(1)))),
        r#"unknown value "colour"; the view has amount, weight, hint"#
    );
    assert_eq!(
        refusal(|event| event.entities.push(("shop".into(), EntityKey::Int(1)))),
        r#"unknown entity "shop"; the view has customer, place"#
    );
    let long = refusal(|event| event.values.push(("x".repeat(1 << 20), Value::Int(1))));
    assert!(long.len() < 200, "a caller's name is not repeated at any length");
    assert_eq!(refusal(|event| event.values.truncate(1)), r#"value "amount" is missing"#);
    assert_eq!(refusal(|event| event.entities.truncate(1)), r#"entity "customer" is missing"#);
    assert_eq!(
        refusal(|event| event.values.push(("weight".into(), Value::Int(1)))),
        r#"value "weight" is given twice"#
    );
    assert_eq!(
        refusal(|event| event.entities.push(("customer".into(), EntityKey::Int(1)))),
        r#"entity "customer" is given twice"#
    );
    assert_eq!(
        refusal(|event| event.values[1].1 = Value::Text("much".into())),
        r#"value "amount" should be double, found text"#
    );
    assert_eq!(
        refusal(|event| event.values.push(("hint".into(), Value::Double(1.0)))),
        r#"value "hint" should be int, found double"#
    );
    assert_eq!(
        refusal(|event| event.entities[1].1 = EntityKey::Text("7".into())),
        r#"entity "customer" should be int, found text"#
    );
    assert_eq!(
        refusal(|event| event.values[1].1 = Value::Double(f64::NAN)),
        r#"value "amount" is NaN; it must be finite"#
    );
    assert_eq!(
        refusal(|event| event.values[1].1 = Value::Double(f64::NEG_INFINITY)),
        r#"value "amount" is -inf; it must be finite"#
    );
    assert!(refusal(|event| event.values[1].1 = Value::Double(1e300)).contains("must not exceed 4398046511104"));
    assert!(refusal(|event| event.values[0].1 = Value::Int(i64::MIN)).contains("must not exceed"));
    assert_eq!(
        refusal(|event| event.entities[0].1 = EntityKey::Text("x".repeat(200))),
        r#"entity "place" has a key of 200 bytes; at most 128 are kept"#
    );
}
