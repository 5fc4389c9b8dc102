#!/usr/bin/env bash
# Puts a Kafka broker (its jars, by Maven) into a cache in the home directory, for the tests of kafka-agent.yaml and kafka-gateway.yaml.
# What is there is left alone. kafka.sh --where: prints the folder of the jars for this version.
set -euo pipefail
# It runs on Java 17 and later, without ZooKeeper.
kafka=3.9.1
slf4j=1.7.36
folder=${XDG_CACHE_HOME:-$HOME/.cache}/failpath-otel/kafka/$kafka
if [ "${1:-}" = --where ]; then echo "$folder"; exit 0; fi
if [ -d "$folder" ]; then exit 0; fi
without() {
  echo "no Kafka: $1; tests that send data through one are skipped" >&2
  exit 0
}
command -v java >/dev/null || without "Java is not installed (17 or later)"
command -v mvn >/dev/null || without "Maven is not installed"
mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >pom.xml <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>failpath-otel</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>$slf4j</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=jars >maven.log 2>&1 </dev/null ||
  without "its jars cannot be had: $(grep -m 1 ERROR maven.log || tail -n 1 maven.log)"
# Whoever was first has fetched the same.
[ -d "$folder" ] || mv jars "$folder"
echo "Kafka $kafka: $(du -sh "$folder" | cut -f1) $folder"
