//! Listening sockets, bound before anything else starts, and before anything else of new settings takes effect. Left to itself,
//! Pingora binds late, tries for 30 s, then panics in a task and leaves a process without a listener.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use nix::fcntl::OFlag;
use tokio::net::{TcpSocket, UnixSocket, UnixStream};

use super::unsent;
use crate::config::Endpoint;
use crate::directory::{Astray, Directory};

/// Connections that may wait to be accepted, where the kernel allows as many (net.core.somaxconn). Beyond that a client gets
/// no reply and retries after a second, and hosts that pull all do so at once.
const QUEUE: u32 = 4096;

/// A bound socket that is not served yet. Connections queue in the kernel meanwhile.
pub(crate) struct Listener {
    pub(super) socket: Socket,
    /// Where it really is: with the port that was chosen.
    pub(super) endpoint: Endpoint,
}

/// The socket itself, which does not block.
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The file of a Unix socket, as it was when the listener was made.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// That of this endpoint, if it has one.
    pub(super) fn of(endpoint: &Endpoint) -> Option<Self> {
        let Endpoint::Unix { path, .. } = endpoint else { return None };
        Some(Self { path: path.clone(), identity: identity(&fs::symlink_metadata(path).ok()?) })
    }

    /// Removes it, so that a client finds nothing in place of a socket that nobody serves. Another file that has its place by now
    /// is left alone.
    pub(super) fn remove(&self) -> io::Result<()> {
        let (folder, name) = folder(&self.path)?;
        match folder.file(name, OFlag::O_PATH).and_then(|file| file.metadata()) {
            Ok(metadata) if identity(&metadata) == self.identity => folder.remove(name),
            Ok(_) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// It is gone, or another file has its place. Where that cannot be told, it is taken to be there.
    pub(super) fn is_lost(&self) -> bool {
        let metadata = folder(&self.path).and_then(|(folder, name)| folder.file(name, OFlag::O_PATH)?.metadata());
        match metadata {
            Ok(metadata) => identity(&metadata) != self.identity,
            Err(cause) => cause.kind() == ErrorKind::NotFound,
        }
    }

    /// Gives it other permission bits. Another file that has its place by now keeps its own.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let (folder, name) = folder(&self.path)?;
        let file = folder.file(name, OFlag::O_PATH)?;
        if identity(&file.metadata()?) != self.identity {
            return Err(io::Error::other("another file has its place"));
        }
        set_mode(&file, mode)
    }
}

/// Device and inode.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The folder of a Unix socket, held open, and the socket's name in it.
fn folder(path: &Path) -> io::Result<(Directory, &OsStr)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::IsADirectory.into());
    };
    let folder = Directory::open(folder).map_err(|astray| match astray {
        Astray::Missing(_) => ErrorKind::NotFound.into(),
        Astray::Failed(_, cause) => cause,
        Astray::Link(clause) => io::Error::other(format!("its folder {clause}")),
    })?;
    Ok((folder, name))
}

/// chmod(2) of a file that is held open by `O_PATH`, which fchmod(2) does not take: the kernel's link in /proc leads to that file,
/// whatever has its name by now.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), fs::Permissions::from_mode(mode))
}

/// Why a socket cannot be listened on.
#[derive(Debug)]
pub(crate) enum BindError {
    /// The system's reason.
    System(io::Error),
    /// The path of a Unix socket is that of a file of another kind, which is not removed.
    NoSocket,
    /// It is that of a folder.
    Folder,
    /// It is that of a socket to which this user may not connect, which would show whether it is served.
    Foreign,
    /// Its folder is one in which the kernel shows something, and takes no files.
    NoFiles,
    /// The address overlaps with this one, which the process itself listens on.
    Overlaps(SocketAddr),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(cause) => cause.fmt(f),
            Self::NoSocket => f.write_str("there is a file that is not a socket"),
            Self::Folder => f.write_str("it is a folder"),
            Self::Foreign => f.write_str("there is another user's socket, which may be served"),
            Self::NoFiles => f.write_str("its folder is the kernel's own, in which no file can be made"),
            Self::Overlaps(address) => write!(f, "it overlaps with {address}, which this process listens on"),
        }
    }
}

impl std::error::Error for BindError {}

impl From<io::Error> for BindError {
    fn from(cause: io::Error) -> Self {
        Self::System(cause)
    }
}

impl Listener {
    /// Binds; port 0 takes a free one. `[::]` means every address, so on a host without IPv6 it is `0.0.0.0`. The file of a
    /// Unix socket that nobody serves any more is replaced.
    pub(super) fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        // The standard library's queue has 128 places, and tokio's sockets belong to a runtime; this one serves nothing else.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let socket = match endpoint {
            Endpoint::Address(address) => {
                let _inside = runtime.enter();
                let bound = match listen(*address) {
                    Err(cause) if address.ip().is_unspecified() && cause.kind() != ErrorKind::AddrInUse => {
                        listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))).map_err(|_| cause)
                    }
                    bound => bound,
                };
                Socket::Tcp(bound?)
            }
            Endpoint::Unix { path, mode } => Socket::Unix(runtime.block_on(listen_unix(path, *mode))?),
        };
        Self::new(socket, endpoint)
    }

    /// Of a socket that listens already, for this endpoint.
    pub(super) fn new(socket: Socket, endpoint: &Endpoint) -> Result<Self, BindError> {
        let endpoint = match &socket {
            Socket::Tcp(socket) => Endpoint::Address(socket.local_addr()?),
            Socket::Unix(_) => endpoint.clone(),
        };
        Ok(Self { socket, endpoint })
    }
}

impl Socket {
    /// The same queue once more, for another who serves it.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(socket) => socket.into(),
            Socket::Unix(socket) => socket.into(),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it (Linux), which saves a system call for each: the end of an answer does not wait until
    // the client has acknowledged what came before (RFC 896).
    socket.set_nodelay(true)?;
    unsent::bound(&socket)?;
    socket.bind(address)?;
    socket.listen(QUEUE)?.into_std()
}

/// Why this user can make no socket at a path, as far as that is known without making one. Of a socket that is there already nothing is said:
/// it may be served, or be handed over by who may write its folder.
pub(crate) fn unix_fault(path: &Path) -> Option<BindError> {
    let look = || -> Result<(), BindError> {
        let (folder, name) = folder(path)?;
        takes_files(&folder)?;
        match folder.file(name, OFlag::O_PATH).and_then(|file| file.metadata()) {
            Ok(file) => is_socket(&file),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(folder.may_make()?),
            Err(cause) => Err(cause.into()),
        }
    };
    look().err()
}

/// In /proc the kernel says of a new file that there is no such folder.
fn takes_files(folder: &Directory) -> Result<(), BindError> {
    if folder.is_kernels()? { Err(BindError::NoFiles) } else { Ok(()) }
}

fn is_socket(file: &Metadata) -> Result<(), BindError> {
    match file.file_type() {
        kind if kind.is_socket() => Ok(()),
        kind if kind.is_dir() => Err(BindError::Folder),
        _ => Err(BindError::NoSocket),
    }
}

/// The socket's file has its permissions before anybody can connect: until it listens, the kernel refuses.
async fn listen_unix(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
    let (folder, name) = folder(path)?;
    takes_files(&folder)?;
    let socket = UnixSocket::new_stream()?;
    if let Err(cause) = socket.bind(path) {
        if cause.kind() != ErrorKind::AddrInUse {
            return Err(cause.into());
        }
        remove_stale(path, &folder, name).await?;
        socket.bind(path)?;
    }
    set_mode(&made(&folder, name)?, mode).map_err(|cause| io::Error::other(format!("its permissions: {cause}")))?;
    Ok(socket.listen(QUEUE)?.into_std()?)
}

/// The file that was made by this name. Whoever owns the folder may have put another in its place since: a link, or a hard
/// link to a file that others may not open.
fn made(folder: &Directory, name: &OsStr) -> io::Result<File> {
    let file = folder.file(name, OFlag::O_PATH)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_socket() && metadata.nlink() == 1 {
        return Ok(file);
    }
    Err(io::Error::other("another file came in its place while it was made, so somebody else may write its folder"))
}

/// Removes the file that an earlier process left behind. That one is gone if the kernel refuses a connection.
async fn remove_stale(path: &Path, folder: &Directory, name: &OsStr) -> Result<(), BindError> {
    is_socket(&folder.file(name, OFlag::O_PATH)?.metadata()?)?;
    match UnixStream::connect(path).await {
        Err(cause) if cause.kind() == ErrorKind::ConnectionRefused => Ok(folder.remove(name)?),
        Err(cause) if cause.kind() == ErrorKind::PermissionDenied => Err(BindError::Foreign),
        // Also one whose queue is full.
        Ok(_) | Err(_) => Err(io::Error::from(ErrorKind::AddrInUse).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net;

    use tokio::net::TcpStream;

    use super::*;

    fn bind(path: &Path, mode: u32) -> Result<UnixListener, BindError> {
        let listener = Listener::bind(&Endpoint::Unix { path: path.to_owned(), mode })?;
        let Socket::Unix(socket) = listener.socket else { panic!("a Unix socket") };
        Ok(socket)
    }

    #[test]
    fn accepted_connections_inherit_no_delay() {
        let listener = Listener::bind(&Endpoint::Address(([127, 0, 0, 1], 0).into())).expect("a port");
        let Socket::Tcp(socket) = listener.socket else { panic!("a TCP socket") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(socket).expect("non-blocking");
            let _client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
            let (stream, _) = listener.accept().await.expect("accepted");
            assert!(stream.nodelay().expect("a socket"));
        });
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_replaces_one_that_was_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        for mode in [0o600, 0o666] {
            // The second one finds the file of the first one.
            let socket = bind(&path, mode).expect("bound");
            assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, mode);
            let mut client = net::UnixStream::connect(&path).expect("it listens");
            client.write_all(b"x").expect("sent");
            socket.set_nonblocking(false).expect("a socket");
            let mut byte = [0];
            socket.accept().expect("a client").0.read_exact(&mut byte).expect("a byte");
        }
    }

    #[test]
    fn the_file_of_a_socket_is_removed_and_another_in_its_place_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let endpoint = Endpoint::Unix { path: path.clone(), mode: 0o600 };
        let _first = bind(&path, 0o600).expect("bound");
        let file = SocketFile::of(&endpoint).expect("it has one");
        assert!(!file.is_lost());
        fs::rename(&path, folder.path().join("moved")).expect("moved");
        assert!(file.is_lost());
        let _second = bind(&path, 0o600).expect("bound");
        assert!(file.is_lost(), "it is another's");
        file.remove().expect("nothing to do");
        net::UnixStream::connect(&path).expect("the second one still listens");
        SocketFile::of(&endpoint).expect("it has one").remove().expect("removed");
        assert!(path.symlink_metadata().is_err());
        file.remove().expect("gone already");
        assert!(SocketFile::of(&Endpoint::Address(([127, 0, 0, 1], 0).into())).is_none());
    }

    /// The owner of a folder put a link in place of root's socket, and root gave the file behind it the permissions of the socket.
    #[test]
    fn what_is_swapped_in_for_a_socket_does_not_get_its_permissions() {
        let top = tempfile::tempdir().expect("a folder");
        let victim = top.path().join("victim");
        fs::write(&victim, "secret").expect("written");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).expect("set");
        let private = top.path().join("private");
        let _private = bind(&private, 0o600).expect("bound");
        let is_kept = |file: &Path| file.metadata().expect("a file").permissions().mode() & 0o777 == 0o600;
        let path = top.path().join("socket");
        let endpoint = Endpoint::Unix { path: path.clone(), mode: 0o600 };
        for swap in [
            |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to).expect("linked"),
            |from: &Path, to: &Path| fs::hard_link(from, to).expect("linked"),
        ] {
            for target in [&victim, &private] {
                let _socket = bind(&path, 0o600).expect("bound");
                let file = SocketFile::of(&endpoint).expect("it has one");
                fs::remove_file(&path).expect("removed");
                swap(target, &path);
                let (folder, name) = folder(&path).expect("a folder");
                assert!(made(&folder, name).is_err(), "at the start");
                assert!(file.set_mode(0o666).is_err(), "at a reload");
                assert!(is_kept(target), "{}", target.display());
                file.remove().expect("left alone");
                fs::remove_file(&path).expect("it is still there");
            }
        }
        let socket = bind(&path, 0o600).expect("bound");
        SocketFile::of(&endpoint).expect("it has one").set_mode(0o644).expect("set");
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o644);
        drop(socket);
        // A folder that a link of somebody else leads to may be another one a moment later. Only root can make such a link.
        let link = top.path().join("link");
        std::os::unix::fs::symlink(top.path(), &link).expect("linked");
        if std::os::unix::fs::lchown(&link, Some(4242), None).is_ok() {
            let refused = bind(&link.join("socket"), 0o600).err().map(|cause| cause.to_string()).unwrap_or_default();
            assert!(refused.contains("a link of user 4242"), "{refused}");
        }
    }

    #[test]
    fn a_unix_socket_that_is_served_and_a_file_of_another_kind_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let _served = bind(&path, 0o600).expect("bound");
        let in_use = |cause| matches!(cause, BindError::System(cause) if cause.kind() == ErrorKind::AddrInUse);
        assert!(bind(&path, 0o600).is_err_and(in_use));
        assert!(net::UnixStream::connect(&path).is_ok(), "the file is still there");
        let file = folder.path().join("file");
        for (make, told) in [
            ((|path| fs::write(path, "kept").expect("written")) as fn(&Path), "there is a file that is not a socket"),
            // It was to be removed.
            (|path| fs::create_dir(path).expect("made"), "it is a folder"),
            (
                |path| std::os::unix::fs::symlink("/nonexistent", path).expect("made"),
                "there is a file that is not a socket",
            ),
        ] {
            make(&file);
            let wrong = [unix_fault(&file), bind(&file, 0o600).err()];
            assert_eq!(
                wrong.map(|wrong| wrong.map(|wrong| wrong.to_string())),
                [Some(told); 2].map(|told| told.map(str::to_owned))
            );
            assert!(file.symlink_metadata().is_ok(), "it is still there");
            fs::remove_file(&file).or_else(|_| fs::remove_dir(&file)).expect("removed");
        }
        let missing = bind(&folder.path().join("none/socket"), 0o600);
        assert!(matches!(missing, Err(BindError::System(cause)) if cause.kind() == ErrorKind::NotFound));
    }

    /// `check` had nothing against paths at which no socket can be made, and the start said that /proc is not there.
    #[test]
    fn what_the_start_refuses_of_a_path_is_told_before_and_nothing_else_is() {
        let top = tempfile::tempdir().expect("a folder");
        let served = top.path().join("served");
        let _socket = bind(&served, 0o600).expect("bound");
        let link = top.path().join("link");
        std::os::unix::fs::symlink(top.path(), &link).expect("linked");
        let none = top.path().join("none/socket");
        let in_file = top.path().join("served/socket");
        for (path, is_refused) in [
            (Path::new("/proc/x.sock"), true),
            (Path::new("/proc/self/x.sock"), true),
            (Path::new("/sys/x.sock"), true),
            (&none, true),
            (&in_file, true),
            (&link.join("new"), false),
        ] {
            let told = unix_fault(path).map(|cause| cause.to_string());
            assert_eq!(told.is_some(), is_refused, "{}: {told:?}", path.display());
            assert_eq!(bind(path, 0o600).err().map(|cause| cause.to_string()), told, "{}", path.display());
        }
        assert!(unix_fault(&served).is_none(), "whoever serves it may be this proxy");
        // For root a folder without permissions is no obstacle.
        if !nix::unistd::geteuid().is_root() {
            fs::set_permissions(top.path(), fs::Permissions::from_mode(0o500)).expect("set");
            let told = unix_fault(&top.path().join("other")).map(|cause| cause.to_string());
            assert_eq!(told, bind(&top.path().join("other"), 0o600).err().map(|cause| cause.to_string()));
            assert!(told.is_some() && unix_fault(&served).is_none());
            fs::set_permissions(top.path(), fs::Permissions::from_mode(0o700)).expect("set");
        }
    }
}
