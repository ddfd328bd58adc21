//! Makes the messages of the link from their .proto file, without protoc.

fn main() {
    #[cfg(feature = "link")]
    link();
}

#[cfg(feature = "link")]
fn link() {
    println!("cargo::rerun-if-changed=proto/link.proto");
    let messages = protox::compile(["link.proto"], ["proto"]).expect("proto/link.proto");
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::link::SmallBuffers")
        .compile_fds(messages)
        .expect("code of proto/link.proto");
}
