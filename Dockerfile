FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies are a layer of their own, which stands until one of these files changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
RUN mkdir -p src tests/it benches \
    && touch src/lib.rs tests/it/main.rs benches/main.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked

COPY src src
# There is no .git here for build.rs to ask.
ARG PROFILE_COMMIT=unknown
# COPY keeps the checkout's mtimes, by which cargo may take the sources for older than the empty ones it has built.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/profile-service /usr/local/bin/profile-service
# PROFILE_DATABASE_URL must be set: an embedded database would be lost with the container, and / is not writable.
WORKDIR /
ENV PROFILE_LISTEN=0.0.0.0:50051
EXPOSE 50051
ENTRYPOINT ["/usr/local/bin/profile-service"]
