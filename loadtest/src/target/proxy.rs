//! A line between two processes that can be cut: what connects to it is connected on, until somebody cuts it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    upstream: SocketAddr,
    is_cut: AtomicBool,
    /// Both ends of every connection; those that ended are dropped when another comes.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> std::io::Result<Arc<Proxy>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let proxy =
            Arc::new(Proxy { address, upstream, is_cut: AtomicBool::new(false), open: Mutex::default() });
        let accepting = proxy.clone();
        std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.connect(client);
            }
        })?;
        Ok(proxy)
    }

    /// Closes every connection, and refuses new ones.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::Release);
    }

    fn connect(&self, client: TcpStream) {
        if self.is_cut.load(Ordering::Acquire) {
            return;
        }
        let Ok(server) = TcpStream::connect(self.upstream) else { return };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
            let _ = from.set_nodelay(true);
            std::thread::spawn(move || pass_on(from, to));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|stream| stream.peer_addr().is_ok());
        open.extend([client, server]);
        // A cut may have come between the first look and this one.
        if self.is_cut.load(Ordering::Acquire) {
            drop(open);
            self.cut();
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = vec![0u8; 64 << 10];
    while let Ok(count) = from.read(&mut piece) {
        if count == 0 || to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_closed_until_it_is_mended() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in echo.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0u8; 1];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
        let proxy = Proxy::start(upstream).unwrap();
        let answers = |stream: &mut TcpStream| {
            let mut byte = [0u8; 1];
            stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
        };
        let mut before = TcpStream::connect(proxy.address).unwrap();
        assert!(answers(&mut before));
        proxy.cut();
        assert!(!answers(&mut before));
        assert!(!answers(&mut TcpStream::connect(proxy.address).unwrap()));
        proxy.mend();
        assert!(answers(&mut TcpStream::connect(proxy.address).unwrap()));
    }
}
