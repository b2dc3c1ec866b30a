# The part of kafka_tools.sh that is about consumer groups; it is sourced there and uses its functions.
# What the tools print is the same with Apache Kafka 4.3.1.

groups=("$tool.consumer.group.ConsumerGroupCommand" --bootstrap-server "$address")
reset=("${groups[@]}" --group running --reset-offsets)

# consumer GROUP PROTOCOL: reads the topic "read" in a group until it is told to stop; its number is in $!
consumer() {
    "${java[@]}" "$tool.consumer.ConsoleConsumer" --bootstrap-server "$address" --topic read \
        --group "$1" --from-beginning --command-property "group.protocol=$2" \
        --command-property auto.commit.interval.ms=100 \
        >"$work/$1.read" 2>"$work/$1.err" </dev/null &
}

# settle COMMAND...: waits until the command succeeds, half a minute at most.
settle() {
    for _ in $(seq 300); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

has_read() { [ "$(wc -l <"$work/$1.read")" -ge 300 ]; }

check "topics: create one for groups" 'Created topic read' "${topics[@]}" \
    --create --topic read --partitions 3
for number in $(seq 300); do echo "$number:value $number"; done >"$work/keyed"
java_tool "$tool.ConsoleProducer" --bootstrap-server "$address" --topic read \
    --reader-property parse.key=true --reader-property key.separator=: \
    <"$work/keyed" >"$work/output" 2>&1
report "console-producer: for groups" $? nothing

consumer running classic
running=$!
consumer newer consumer
newer=$!
consumers="$running $newer"
settle has_read running && settle has_read newer
for group in running newer; do
    sort -u "$work/$group.read" | wc -l >"$work/output"
    cat "$work/$group.err" >>"$work/output"
    report "console-consumer: all records in the group $group" $? '^300$'
done

check "consumer-groups: list" '^running$' "${groups[@]}" --list
check "consumer-groups: list states" 'running +Stable' "${groups[@]}" --list --state
check "consumer-groups: list stable ones" 'newer +Stable' "${groups[@]}" --list --state stable
check "consumer-groups: list types" 'newer +Consumer' "${groups[@]}" --list --type
check "consumer-groups: list classic ones" 'running +Classic' "${groups[@]}" --list --type classic
check "consumer-groups: describe" 'running +read +[0-2] +([0-9]+) +\1 +0 +console-consumer' \
    "${groups[@]}" --describe --group running
check "consumer-groups: describe the newer kind" 'newer +read +[0-2] +([0-9]+) +\1 +0' \
    "${groups[@]}" --describe --group newer
check "consumer-groups: describe all, offsets with epochs" 'newer +read +[0-2] +[0-9]+ +([0-9]+) +\1 +0 ' \
    "${groups[@]}" --describe --all-groups --verbose
check "consumer-groups: describe members" 'read(:|\()0,1,2' \
    "${groups[@]}" --describe --group running --members --verbose
check "consumer-groups: describe members of the newer kind" 'read(:|\()0,1,2' \
    "${groups[@]}" --describe --group newer --members --verbose
check "consumer-groups: describe state" 'range +Stable +1' \
    "${groups[@]}" --describe --group running --state
check "consumer-groups: describe the newer kind's state" 'uniform +Stable' \
    "${groups[@]}" --describe --group newer --state --verbose
refused_by_text "consumer-groups: reset a running group" 'is inactive, but the current state is Stable' \
    "${reset[@]}" --topic read --to-earliest --execute
refused_by_text "consumer-groups: delete a running group" 'GroupNotEmptyException' \
    "${groups[@]}" --delete --group running
refused_by_text "consumer-groups: delete offsets that are in use" 'subscribed to' \
    "${groups[@]}" --delete-offsets --group running --topic read
refused_by_text "consumer-groups: describe one that is not there" 'GroupIdNotFoundException' \
    "${groups[@]}" --describe --group nobody

kill "$running" "$newer"
wait "$running" "$newer"
consumers=
check "consumer-groups: describe without members" 'running +read +[0-2] +([0-9]+) +\1 +0 +- ' \
    "${groups[@]}" --describe --group running
check "consumer-groups: list empty ones" 'running +Empty' "${groups[@]}" --list --state empty

check "consumer-groups: plan a reset" 'running +read +0 +0 *$' "${reset[@]}" \
    --topic read --to-earliest --dry-run
check "consumer-groups: a plan changes nothing" 'running +read +0 +([0-9]+) +\1 +0' "${groups[@]}" \
    --describe --group running
check "consumer-groups: reset to the start" 'running +read +0 +0 *$' "${reset[@]}" \
    --topic read --to-earliest --execute
check "consumer-groups: reset one partition to an offset" 'running +read +1 +7 *$' "${reset[@]}" \
    --topic read:1 --to-offset 7 --execute
check "consumer-groups: reset by a shift" 'running +read +1 +12 *$' "${reset[@]}" \
    --topic read:1 --shift-by 5 --execute
check "consumer-groups: reset by a shift past the start" 'running +read +1 +0 *$' "${reset[@]}" \
    --topic read:1 --shift-by -500 --dry-run
check "consumer-groups: export where it is" '"?running"?,"?read"?,1,12|"?read"?,1,12' "${reset[@]}" \
    --topic read --to-current --dry-run --export
grep -E '^"?(running"?,"?)?read"?,' "$work/output" >"$work/positions.csv"
check "consumer-groups: reset to the end" 'running +read +1 +[0-9]{2,3} *$' "${reset[@]}" \
    --all-topics --to-latest --execute
check "consumer-groups: reset to the end has no lag" 'running +read +1 +([0-9]+) +\1 +0' \
    "${groups[@]}" --describe --group running
check "consumer-groups: reset from a file" 'running +read +1 +12 *$' "${reset[@]}" \
    --from-file "$work/positions.csv" --execute
check "consumer-groups: reset by duration" 'running +read +1 +0 *$' "${reset[@]}" \
    --topic read --by-duration PT1H --execute
check "consumer-groups: reset to a time" 'running +read +1 +0 *$' "${reset[@]}" \
    --topic read --to-datetime 2020-01-01T00:00:00.000 --execute
check "consumer-groups: reset to a time after all records" 'running +read +1 +[0-9]{2,3} *$' \
    "${reset[@]}" --topic read --by-duration PT0S --execute
check "consumer-groups: reset the newer kind" 'newer +read +2 +3 *$' "${groups[@]}" --group newer \
    --reset-offsets --topic read:2 --to-offset 3 --execute
check "consumer-groups: delete offsets" 'read +[0-2] +Successful' "${groups[@]}" \
    --delete-offsets --group running --topic read
check "consumer-groups: delete" 'successful' "${groups[@]}" --delete --group running --group newer
check "consumer-groups: none is left" nothing "${groups[@]}" --list

check "verifiable-consumer" '"count":500|"maxOffset"' "$tool.VerifiableConsumer" \
    --bootstrap-server "$address" --topic verified --group-id verified --max-messages 500 \
    --reset-policy earliest --session-timeout 6000
check "end-to-end-latency" 'Percentiles' "$tool.EndToEndLatency" --bootstrap-server "$address" \
    --topic latency --num-records 100 --producer-acks all --record-size 64
check "consumer-perf-test" '20000' "$tool.ConsumerPerformance" --bootstrap-server "$address" \
    --topic perf-none --num-records 20000 --timeout 60000
