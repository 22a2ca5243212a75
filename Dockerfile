FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# Writes the dependencies into the program, for scanners of vulnerabilities: cargo audit bin, Trivy and others read them.
RUN cargo install cargo-auditable --version 0.7.7 --locked

# The dependencies are a layer of their own, which stands until one of these files changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
RUN mkdir -p src tests/it benches \
    && touch src/lib.rs tests/it/main.rs benches/main.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo auditable build --release --locked

COPY src src
# There is no .git here for build.rs to ask.
ARG PROFILE_COMMIT=unknown
# COPY keeps the checkout's mtimes, by which cargo may take the sources for older than the empty ones it has built.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo auditable build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
ARG PROFILE_COMMIT=unknown
LABEL org.opencontainers.image.title=profile-service \
      org.opencontainers.image.description="A gRPC service that keeps people's profiles" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=0.2.0 \
      org.opencontainers.image.revision=$PROFILE_COMMIT
COPY --from=build /build/target/release/profile-service /usr/local/bin/profile-service
# PROFILE_DATABASE_URL must be set: an embedded database would be lost with the container, and / is not writable. So must
# TLS, or PROFILE_INSECURE_LISTEN. Nothing is written to any file.
WORKDIR /
ENV PROFILE_LISTEN=0.0.0.0:50051 \
    PROFILE_METRICS_LISTEN=0.0.0.0:9090
EXPOSE 50051 9090
# Alive, whatever the database is: a new container would not bring that back.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["/usr/local/bin/profile-service", "health", "--service", "liveness"]
ENTRYPOINT ["/usr/local/bin/profile-service"]
