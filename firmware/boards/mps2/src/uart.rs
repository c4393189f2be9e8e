//! The UART as `embedded-io` sees it. Bytes that come are put into a queue by an interrupt; it holds one frame.

use core::convert::Infallible;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use heapless::spsc::Consumer;

use crate::registers::UartRegisters;

/// The main loop's end.
pub struct Uart {
    /// What came.
    pub received: Consumer<'static, u8>,
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(self.received.ready())
    }
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let mut count = 0;
        for (place, byte) in bytes.iter_mut().zip(core::iter::from_fn(|| self.received.dequeue())) {
            *place = byte;
            count += 1;
        }
        Ok(count)
    }
}

impl WriteReady for Uart {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!UartRegisters::is_full())
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let mut count = 0;
        for byte in bytes {
            if UartRegisters::is_full() {
                break;
            }
            UartRegisters::put(*byte);
            count += 1;
        }
        Ok(count)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while UartRegisters::is_full() {}
        Ok(())
    }
}
