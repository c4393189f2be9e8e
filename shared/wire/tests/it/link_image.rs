//! Signed blobs and what is said of them: exact bytes. DO NOT EDIT what stands here: nodes in the field write and read
//! these bytes.

use tributary_wire::link::*;

fn head() -> ImageHead<'static> {
    let node = NodeName::new("mps2").unwrap();
    ImageHead { kind: BlobKind::Model, node, version: 3, rollback: 258, length: 70_000, hash: [7; 64] }
}

#[test]
fn a_head_has_one_form() {
    let mut bytes = head().signed().to_vec();
    let mut expected = b"TNI1\x01\x04mps2".to_vec();
    expected.resize(72, 0);
    expected.extend([3, 0, 0, 0, 2, 1, 0, 0, 0x70, 0x11, 1, 0]);
    expected.extend([7; 64]);
    assert_eq!(bytes, expected);
    bytes.extend([9; 64]);
    assert_eq!(ImageHead::read(&bytes), Ok(head()));
    assert_eq!(ImageHead::read(&bytes[..IMAGE_HEAD - 1]), Err(WrongImage::Short { found: 211 }));
    for (at, wrong) in [(0, WrongImage::Magic), (4, WrongImage::Kind { found: 0x81 }), (5, WrongImage::Node)] {
        let mut changed = bytes.clone();
        changed[at] ^= 0x80;
        assert_eq!(ImageHead::read(&changed), Err(wrong));
    }
    // Whatever the bit, a head is refused or it reads as something else: no two spellings of one head.
    for bit in 0..8 * IMAGE_SIGNED {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = ImageHead::read(&changed) {
            assert_eq!(read.signed(), changed[..IMAGE_SIGNED], "bit {bit}");
            assert_ne!(read, head(), "bit {bit}");
        }
    }
}

#[test]
fn what_a_node_holds() {
    let holds = Holds { kind: BlobKind::Firmware, version: 300, rollback: 2, state: Held::Reverted { version: 301 } };
    for (message, bytes) in [
        (UpV1::Holds(holds), "0e010301ac020202ad02b266f69200"),
        (UpV1::Holds(Holds { kind: BlobKind::Model, state: Held::Trial, ..holds }), "03010309ac0202013ee3237500"),
        (UpV1::Blob { blob: 1, step: BlobStep::Refused(BlobProblem::Node) }, "0a0102010207"),
    ] {
        let mut frame = [0; MAX_FRAME];
        let length = encode(&Up::V1(message), &mut frame).unwrap();
        let hex: String = frame[..length].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut line = Deframer::default();
        let read = frame[..length].iter().find_map(|byte| line.push(*byte).map(|read| read.unwrap().to_vec())).unwrap();
        assert_eq!(Up::decode(&read), Ok(Up::V1(message)));
        assert!(hex.starts_with(bytes), "{hex}");
    }
}
