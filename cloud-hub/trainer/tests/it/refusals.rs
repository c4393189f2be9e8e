//! What a run refuses, and how it says so. None of these leaves a package.

use cloud_hub_trainer::{RunSpec, Step, TrainError};
use tributary_wire::Sha256;

use crate::data::{Folder, Row, fraud, rows, write};

fn refused(folder: &Folder, exit_code: u8, message: &str) {
    let error = folder.train().unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
    assert_eq!(error.exit_code(), exit_code, "{error}");
    assert!(!folder.has_outcome());
}

fn changed(change: impl Fn(&mut Vec<Row>)) -> Folder {
    let mut data = rows(16, 50, 1, fraud);
    change(&mut data);
    Folder::new(&data)
}

#[test]
fn a_dataset_without_labels() {
    let folder = changed(|rows| rows.iter_mut().for_each(|row| row.label = None));
    refused(&folder, 3, "no row has a label (800 rows)");
}

#[test]
fn a_dataset_without_positives() {
    let folder = changed(|rows| rows.iter_mut().for_each(|row| row.label = Some(false)));
    refused(&folder, 3, "the training rows have 0 positives and 400 negatives");
}

#[test]
fn a_feature_column_that_is_missing() {
    let folder = changed(|_| {});
    let path = folder.dir.path().join("dataset.parquet");
    write(&path, &rows(16, 50, 1, fraud), ["amount", "far", "night"]);
    refused(
        &folder,
        3,
        r#"column "distance" is missing; the file has event_id, event_time, amount, far, night, label"#,
    );
}

#[test]
fn values_that_are_not_finite() {
    let folder = changed(|rows| rows[17].features[1] = Some(f32::NAN));
    refused(&folder, 3, r#"row 17, column "distance": NaN, expected a finite number"#);
    let folder = changed(|rows| rows[18].features[0] = None);
    refused(&folder, 3, r#"row 18, column "amount": null"#);
}

#[test]
fn rows_out_of_time_order() {
    let folder = changed(|rows| rows.swap(40, 400));
    refused(&folder, 3, "row 41 is earlier than the row before it");
}

#[test]
fn too_few_days() {
    let folder = Folder::new(&rows(8, 100, 1, fraud));
    refused(&folder, 3, "cover 8 days; 4 validation and 4 test days leave nothing to train on");
}

#[test]
fn a_file_that_is_not_parquet_or_not_the_one_that_was_meant() {
    let mut folder = changed(|_| {});
    let path = folder.dir.path().join("dataset.parquet");
    folder.spec.dataset_hash = Some(Sha256([7; 32]));
    refused(&folder, 3, "the run was made for 0707");
    folder.spec.dataset_hash = None;
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(&folder, 3, "dataset.parquet: not a readable Parquet file");
    std::fs::remove_file(&path).unwrap();
    refused(&folder, 3, "dataset.parquet");
}

#[test]
fn settings_that_cannot_be_trained_with() {
    let mut folder = changed(|_| {});
    folder.spec.model.dropout = 1.5;
    refused(&folder, 2, "model.dropout is 1.5; allowed is 0 to 0.95");
    folder.spec.model.dropout = 0.0;
    folder.spec.features = vec!["amount".to_owned()];
    refused(&folder, 2, "the run names the features amount; the view has amount, distance, night");
    folder.spec.features.clear();
    folder.spec.view = "name = 3".to_owned();
    refused(&folder, 2, "the feature view is not valid");
    let unknown = serde_json::from_str::<RunSpec>(r#"{"run": "x", "epocs": 3}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `epocs`"), "{unknown}");
}

#[test]
fn a_champion_that_is_broken_or_needs_other_features() {
    let mut folder = changed(|_| {});
    std::fs::write(folder.dir.path().join("champion.tpk"), b"not a package").unwrap();
    folder.spec.champion = Some("champion.tpk".into());
    refused(&folder, 3, "champion.tpk");
}

#[test]
fn a_training_that_diverges() {
    let mut folder = Folder::new(&rows(16, 200, 1, fraud));
    folder.spec.model.learning_rate = 1.0;
    folder.spec.model.weight_decay = 100.0;
    folder.spec.model.epochs = 60;
    folder.spec.model.patience = 0;
    match folder.train() {
        Err(error @ TrainError::Diverged { .. }) => {
            assert!(error.to_string().contains("lower model.learning_rate"), "{error}");
            assert!(!folder.has_outcome());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_that_is_told_to_stop_stops() {
    let folder = changed(|_| {});
    let error = folder.train_watched(&mut |step: &Step| !matches!(step, Step::Epoch { epoch: 2, .. })).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("cancelled", 6));
    assert!(!folder.has_outcome());
}
