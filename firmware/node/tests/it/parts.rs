//! Drivers against a bus that expects exact bytes.

use embedded_hal_mock::eh1::i2c::Mock as Bus;
use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
use lm75::{Address, Lm75};
use tributary_node::{Accelerometer, Adxl345, SensorError, Thermometer};

const ADDRESS: u8 = Adxl345::<Bus>::ADDRESS;

#[test]
fn an_accelerometer_is_checked_set_up_and_read() {
    let mut bus = Mock::new(&[
        Transaction::write_read(ADDRESS, vec![0x00], vec![0xe5]),
        Transaction::write(ADDRESS, vec![0x2c, 14]),
        Transaction::write(ADDRESS, vec![0x31, 0x0b]),
        Transaction::write(ADDRESS, vec![0x2d, 0x08]),
        Transaction::write_read(ADDRESS, vec![0x32], vec![1, 0, 0xff, 0xff, 0x00, 0x01]),
    ]);
    let mut part = Adxl345::new(bus.clone(), ADDRESS);
    part.start(1000).unwrap();
    assert_eq!(part.read(), Ok([1, -1, 256]));
    bus.done();
}

#[test]
fn a_rate_is_never_slower_than_asked_for() {
    // 3200 Hz is code 15, and each code below is half as fast.
    for (rate, code) in [(3200, 15), (1601, 15), (1600, 14), (801, 14), (800, 13), (10, 7), (1, 6)] {
        let mut bus = Mock::new(&[
            Transaction::write_read(ADDRESS, vec![0x00], vec![0xe5]),
            Transaction::write(ADDRESS, vec![0x2c, code]),
            Transaction::write(ADDRESS, vec![0x31, 0x0b]),
            Transaction::write(ADDRESS, vec![0x2d, 0x08]),
        ]);
        Adxl345::new(bus.clone(), ADDRESS).start(rate).unwrap();
        bus.done();
    }
}

#[test]
fn another_part_and_a_silent_bus_are_told_apart() {
    let mut bus = Mock::new(&[Transaction::write_read(ADDRESS, vec![0x00], vec![0x33])]);
    assert_eq!(Adxl345::new(bus.clone(), ADDRESS).start(1000), Err(SensorError::OtherPart { found: 0x33 }));
    bus.done();
    let error = embedded_hal::i2c::ErrorKind::NoAcknowledge(embedded_hal::i2c::NoAcknowledgeSource::Address);
    let mut bus = Mock::new(&[Transaction::write_read(ADDRESS, vec![0x00], vec![0]).with_error(error)]);
    assert_eq!(Adxl345::new(bus.clone(), ADDRESS).start(1000), Err(SensorError::Bus));
    bus.done();
}

#[test]
fn a_thermometer_gives_hundredths() {
    let mut bus = Mock::new(&[
        Transaction::write_read(0x48, vec![0], vec![0x15, 0x80]),
        Transaction::write_read(0x48, vec![0], vec![0xff, 0x80]),
    ]);
    let mut part = Lm75::new(bus.clone(), Address::default());
    assert_eq!(Thermometer::read(&mut part), Some(2150));
    assert_eq!(Thermometer::read(&mut part), Some(-50));
    bus.done();
}
