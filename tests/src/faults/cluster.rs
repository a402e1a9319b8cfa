//! A cluster of real nats-servers on the loopback interface, each of which can be killed and restarted.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Paths where nats-server may be installed.
pub const NATS_SERVERS: [&str; 3] =
    ["/usr/sbin/nats-server", "/usr/bin/nats-server", "/usr/local/bin/nats-server"];
/// Maximum time until a node listens.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The nodes, with their files in one folder. Dropping the cluster kills them.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    ports: Vec<u16>,
    routes: Vec<u16>,
    nodes: Vec<Option<Child>>,
    /// Additional configuration of every node.
    more: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.kill(node));
    }
}

impl Cluster {
    /// Starts `count` nodes. Returns `None`, with a message, if nats-server is not installed.
    ///
    /// # Panics
    ///
    /// If they cannot be started; or, with `ETWSIEVE_PEERS=required` in the environment, instead of `None`.
    pub fn start(folder: &Path, count: usize) -> Option<Self> {
        Self::start_with(folder, count, "")
    }

    /// Starts nodes with additional configuration: logins, TLS, limits.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn start_with(folder: &Path, count: usize, more: &str) -> Option<Self> {
        let Some(program) = NATS_SERVERS.iter().map(PathBuf::from).find(|path| path.exists()) else {
            let required = std::env::var("ETWSIEVE_PEERS").is_ok_and(|value| value == "required");
            assert!(!required, "nats-server is required: apt-get install nats-server");
            println!("skipped: nats-server is not installed");
            return None;
        };
        // All sockets are open at once, so that no port is assigned twice.
        let sockets: Vec<TcpListener> =
            (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let mut ports: Vec<u16> =
            sockets.iter().map(|socket| socket.local_addr().expect("it works on loopback").port()).collect();
        let routes = ports.split_off(count);
        drop(sockets);
        let mut cluster = Self {
            program,
            folder: folder.to_owned(),
            ports,
            routes,
            nodes: (0..count).map(|_| None).collect(),
            more: more.to_owned(),
        };
        (0..count).for_each(|node| cluster.write_configuration(node));
        (0..count).for_each(|node| cluster.spawn(node));
        (0..count).for_each(|node| cluster.wait(node));
        Some(cluster)
    }

    /// Addresses of all nodes.
    pub fn url(&self) -> String {
        self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// Addresses of all nodes, each with this login: `user:password@` or `token@`.
    pub fn url_with(&self, login: &str) -> String {
        self.url().replace("nats://", &format!("nats://{login}"))
    }

    /// Replaces the additional configuration of all nodes. A running node applies it without a restart.
    ///
    /// # Panics
    ///
    /// If the files cannot be written.
    pub fn reconfigure(&mut self, more: &str) {
        more.clone_into(&mut self.more);
        for node in 0..self.nodes.len() {
            self.write_configuration(node);
            if let Some(child) = &self.nodes[node] {
                let _ = Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
            }
        }
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a killed node again, with its files.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn restart(&mut self, node: usize) {
        self.spawn(node);
        self.wait(node);
    }

    fn spawn(&mut self, node: usize) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.join(format!("n{node}.log")));
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(self.folder.join(format!("n{node}.conf")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("it works on loopback"))
            .spawn()
            .expect("it works on loopback");
        self.nodes[node] = Some(child);
    }

    fn wait(&self, node: usize) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.ports[node])).is_err() {
            assert!(
                begun.elapsed() < START_TIMEOUT,
                "node {node} does not listen: {}",
                self.folder.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn write_configuration(&self, node: usize) {
        let routes: Vec<String> =
            self.routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let cluster = if self.nodes.len() > 1 {
            format!(
                "cluster {{ name: etwsieve, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                self.routes[node],
                routes.join(", ")
            )
        } else {
            String::new()
        };
        let text = format!(
            "server_name: n{node}\nlisten: \"127.0.0.1:{}\"\nmax_payload: 2MB\n\
             jetstream {{ store_dir: \"{}\", max_memory_store: 64MB, max_file_store: 8GB }}\n{cluster}{}\n",
            self.ports[node],
            self.folder.join(format!("n{node}")).display(),
            self.more,
        );
        std::fs::write(self.folder.join(format!("n{node}.conf")), text).expect("it works on loopback");
    }
}
